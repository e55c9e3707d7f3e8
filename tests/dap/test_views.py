"""Views: what their pixels see is where the room says, and their cameras look where they should."""

import numpy as np
import numpy.typing as npt
import pytest

from dap import sphere
from dap.errors import InvalidParameter
from dap.views import LAYOUTS, MAX_PIXELS, MEASURES, Layout, Measure, Views, pixel_count, views
from tests.dap.images import picture
from tests.dap.rooms import ball, box, depth_map, distance_to_box

LOW, HIGH = (-3, -2, -1.5), (4, 2.5, 1.2)
ROOM = box(512, LOW, HIGH)
SIZE = (48, 64)


def points_of(found: Views) -> npt.NDArray[np.float64]:
    """Every pixel in the axes of the world, (N, h, w, 3), by the textbook: the inverse of K, then the pose."""
    v, u = np.indices(found.size)
    directions = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(found.intrinsics).T
    if found.measure == "ray":
        directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    local = found.depth[..., None] * directions
    rotation, position = found.poses[:, :3, :3], found.poses[:, :3, 3]
    return np.einsum("nij,nhwj->nhwi", rotation, local) + position[:, None, None]


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_pixels_of_all_views_are_on_the_walls_of_the_room(layout: Layout, measure: Measure) -> None:
    points = points_of(views(ROOM, picture(), layout, size=SIZE, measure=measure))
    distance = np.linalg.norm(points, axis=-1)
    expected = distance_to_box(points / distance[..., None], LOW, HIGH)
    # The nearest pixel of the panorama is half a pixel off, 0.18 degrees in each direction.
    assert np.abs(distance / expected - 1).max() < 0.02
    assert np.abs(distance / expected - 1).mean() < 0.002


@pytest.mark.parametrize("frame", sphere.FRAMES)
def test_the_poses_lead_to_the_frame_that_is_asked_for(frame: sphere.Frame) -> None:
    found, in_ros = (views(ROOM, picture(), size=SIZE, frame=axes) for axes in (frame, "ros"))
    assert found.frame == frame
    np.testing.assert_allclose(points_of(found), points_of(in_ros) @ sphere.frame_rotation(frame).T, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_pose_is_a_rotation_where_the_panorama_stands(layout: Layout) -> None:
    poses = views(ball(), picture(), layout, size=SIZE).poses
    rotation = poses[:, :3, :3]
    np.testing.assert_allclose(
        rotation @ np.swapaxes(rotation, 1, 2), np.tile(np.eye(3), (len(poses), 1, 1)), atol=1e-9
    )
    np.testing.assert_allclose(np.linalg.det(rotation), 1)
    np.testing.assert_array_equal(poses[:, :, 3], np.tile((0, 0, 0, 1), (len(poses), 1)))


def test_z_is_the_ray_times_the_cosine_of_its_angle_to_the_axis() -> None:
    ray = views(ball(radius=3), picture(), "horizon", count=1, size=(101, 101), fov_deg=90)
    assert ray.depth[0, 50, 50] == pytest.approx(3)
    # 45 degrees to the right at the very border, half a pixel beyond the last centre.
    focal = 101 / 2
    assert ray.depth[0, 50, 100] == pytest.approx(3 * np.cos(np.arctan(50 / focal)), rel=1e-6)
    along = views(ball(radius=3), picture(), "horizon", count=1, size=(101, 101), measure="ray")
    np.testing.assert_array_equal(along.depth, np.float32(3))


def test_a_cube_has_six_sides_that_look_where_their_names_say() -> None:
    found = views(ball(), picture(), "cube", size=SIZE)
    forward = {name: tuple(np.rint(pose[:3, 2])) for name, pose in zip(found.names, found.poses, strict=True)}
    assert forward == {
        "front": (1, 0, 0),
        "right": (0, -1, 0),
        "back": (-1, 0, 0),
        "left": (0, 1, 0),
        "up": (0, 0, 1),
        "down": (0, 0, -1),
    }
    # Exactly: a reader finds zeros and ones in the file.
    assert {*np.unique(found.poses)} == {-1, 0, 1}
    # The lower border of `up` and the upper border of `down` are the borders of `front`.
    down = {name: tuple(np.rint(pose[:3, 1])) for name, pose in zip(found.names, found.poses, strict=True)}
    assert (down["front"], down["up"], down["down"]) == ((0, 0, -1), (1, 0, 0), (-1, 0, 0))


def test_the_sides_of_a_cube_of_90_degrees_are_the_whole_sphere_once() -> None:
    found = views(ball(radius=1), picture(), "cube", size=(32, 32), measure="ray")
    directions = points_of(found).reshape(-1, 3)
    # A pixel of a plane at distance 1 has the solid angle cos^3 of its angle to the axis, times its area.
    solid_angle = np.abs(directions).max(axis=1) ** 3 * (2 / 32) ** 2
    assert solid_angle.sum() == pytest.approx(4 * np.pi, rel=1e-3)
    np.testing.assert_allclose(solid_angle @ directions, 0, atol=1e-9)


@pytest.mark.parametrize("count", [1, 3, 8, 36])
def test_views_around_the_horizon_start_in_front_and_turn_right(count: int) -> None:
    found = views(ball(), picture(), "horizon", count=count, size=(16, 16))
    assert len(found.depth) == len(found.names) == len(set(found.names)) == count
    x, y = sphere.pixel_coordinates(found.poses[:, :3, 2], 180, 360)
    np.testing.assert_allclose(x % 360, (180 + 360 / count * np.arange(count)) % 360, atol=1e-6)
    np.testing.assert_allclose(y, 90)


def test_the_icosahedron_has_twelve_level_views_that_all_face_apart() -> None:
    poses = views(ball(), picture(), "icosahedron", size=SIZE).poses
    forward = poses[:, :3, 2]
    angles = np.degrees(np.arccos(np.clip(forward @ forward.T, -1, 1)))[~np.eye(12, dtype=np.bool_)]
    assert angles.min() == pytest.approx(63.435, abs=1e-3)
    np.testing.assert_allclose(poses[:, 2, 0], 0, atol=1e-9)


@pytest.mark.parametrize(("fov_deg", "size"), [(60, (48, 64)), (90, (64, 64)), (120, (40, 200))])
def test_the_intrinsics_are_those_of_the_field_of_view(fov_deg: float, size: tuple[int, int]) -> None:
    found = views(ball(), picture(), "cube", size=size, fov_deg=fov_deg)
    height, width = size
    focal = found.intrinsics[0, 0]
    assert 2 * np.degrees(np.arctan(width / 2 / focal)) == pytest.approx(fov_deg)
    expected = [[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]]
    np.testing.assert_allclose(found.intrinsics, expected)
    assert (found.size, found.fov_deg) == (size, fov_deg)


def test_no_depth_is_invented_between_two_surfaces() -> None:
    depth = np.where(np.random.default_rng(0).random((32, 64)) < 0.5, 2.0, 7.0)
    found = views(depth_map(depth), picture(), "cube", size=(128, 128), measure="ray")
    assert {*np.unique(found.depth)} == {2, 7}


def test_what_is_not_valid_in_the_panorama_is_not_valid_in_a_view() -> None:
    valid = np.zeros((64, 128), np.bool_)
    valid[:, 64:] = True
    depth = np.where(valid, 3.0, np.nan)
    found = views(depth_map(depth, valid), picture(), "cube", size=(32, 32))
    shares = dict(zip(found.names, found.valid.mean(axis=(1, 2)), strict=True))
    assert shares == {"front": 0.5, "right": 1, "back": 0.5, "left": 0, "up": 0.5, "down": 0.5}
    assert np.isfinite(found.depth[found.valid]).all()


@pytest.mark.parametrize("height", [32, 200])
def test_colours_are_those_that_the_rays_meet_and_longitude_is_a_circle(height: int) -> None:
    x = np.cos(sphere.longitudes(2 * height)) * 100 + 128
    pixels = np.repeat(np.rint(x).astype(np.uint8)[None, :, None], height, axis=0).repeat(3, axis=2)
    found = views(ball(), pixels, "horizon", count=4, size=(33, 33))
    points = points_of(found)
    longitude = np.arctan2(-points[..., 1], points[..., 0])
    # A cosine between two samples half a step apart is at most this far from the line between them.
    off = 100 * (np.pi / height) ** 2 / 8 + 1.1
    np.testing.assert_allclose(found.colors[..., 0], np.cos(longitude) * 100 + 128, atol=off)
    assert found.colors.dtype == np.uint8


def test_the_views_know_where_they_come_from() -> None:
    found = views(ball(), picture(), "icosahedron", size=SIZE, measure="ray", frame="opencv")
    assert (found.layout, found.measure, found.frame) == ("icosahedron", "ray", "opencv")
    assert (found.model, found.range, found.range_mask) == ("test", None, "none")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_how_many_pixels_there_will_be_is_known_before(layout: Layout) -> None:
    assert pixel_count(layout, 5, SIZE, 90.0) == views(ball(), picture(), layout, count=5, size=SIZE).depth.size


@pytest.mark.parametrize(
    ("asked", "refusal"),
    [
        ({"layout": "horizon", "count": 0}, "1 to 36 views around the horizon; got 0"),
        ({"layout": "horizon", "count": 37}, "1 to 36 views around the horizon; got 37"),
        ({"fov_deg": 9.9}, "10 to 150 degrees; got 9.9"),
        ({"fov_deg": 151}, "10 to 150 degrees; got 151"),
        ({"fov_deg": float("nan")}, "10 to 150 degrees; got nan"),
        ({"size": (15, 64)}, "16 to 4096 pixels; got 64x15"),
        ({"size": (64, 4097)}, "16 to 4096 pixels; got 4097x64"),
        ({"size": (2048, 2048)}, f"{MAX_PIXELS} pixels at most; got 6 of 2048x2048"),
    ],
)
def test_what_is_not_within_its_limits_is_refused(asked: dict, refusal: str) -> None:
    with pytest.raises(InvalidParameter, match=refusal):
        views(ball(), picture(), **asked)
