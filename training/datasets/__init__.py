"""Panoramas with and without depth: readers of the published data sets, and the shards that everything else reads.

The way in: `registry.open_dataset(name, root)` gives a `base.Dataset`, which lists `Entry`s cheaply and reads each into
a `Sample`; `packing.pack` writes samples into shards with a manifest; `shards.ShardReader` reads them back, in order
and checked. Curation, labelling and training read shards only, so that no later stage knows where a panorama came from.

What is published of each data set, units, invalid values, splits and errata, is in its module, and where nothing is
documented the module says so and what was chosen.
"""
