"""Curation of unlabelled panoramas: what is kept for labelling, and whether it is indoor or outdoor.

`survey` measures every panorama of a folder of shards (`horizon`, `duplicates`, `places`) and judges them by rules;
`verdicts` is what it leaves for others to read.
"""
