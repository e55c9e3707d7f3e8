"""Synthetic panoramas with exact depth: procedural scenes and a ray caster that draws them.

What is drawn. Indoors: rooms of eleven kinds (offices, corridors, meeting rooms, halls, stairs, ...) as rectangles, Ls
and Ts, with niches, slanted corners and ceilings, beams and pipes, with doors, windows and glimpses of other rooms and
of the outside, furniture, and near the camera the fine clutter that real rooms owe their edges to. Outdoors: seven
kinds of places (car parks, streets, courtyards, parks, plazas, fields, mountain tops) with facades in relief, cars,
bicycles, people, trees and street furniture under clear, cloudy and white skies; no mirrors anywhere. All of it is
boxes, cylinders and ellipsoids with procedural textures, some hundreds a scene, lit by lamps or the sun with shadows,
ambient light and occlusion, and then photographed with the faults of scanners and of consumer cameras, a third of them
with the seams of two lenses. Camera height, tilt and the sizes of rooms follow reality, because the scale of a scene
can only be learnt from them.

Conventions. A panorama is an equirectangular image whose column W/2 looks forward, longitude growing to the right;
depth is the distance along the ray in metres, +inf on the sky; vectors are in the camera's frame, x forward, y left,
z up. A seed is a scene: the same in any batch, at any size, on any machine (colours within rounding).

All of this is the `standard` domain. Another, `real-like`, has layouts, materials, lights and cameras of its own: see
`real_like`. `sampling.Domain` has all of them.

The way in is `render.render_batch(seeds, height, width)`; `dap render` writes samples and a contact sheet.

Sources. Nothing is taken from data sets or from other people's code. Slab intersection: Kay and Kajiya, SIGGRAPH 1986;
mip maps: Williams, SIGGRAPH 1983; ambient occlusion: Zhukov et al., EGWR 1998; the R2 sequence: M. Roberts, "The
unreasonable effectiveness of quasirandom sequences", 2018; JPEG quantisation: ITU-T T.81, Annex K.
"""

RENDERER_VERSION = 7
"""Counts up when a seed gives another picture or another depth: rendered scenes kept on disk are named by it."""
