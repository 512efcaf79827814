"""The keys and types of the format's JSON files; keys beyond these are allowed."""

from segswap.files.records import ABSENT, NONE, Schema

MANIFEST: Schema = {
    "format": (int,), "generator": (str,), "created": (str,), "seed": (int,), "config": (dict,),
    "splits": (dict,), "inputs": (list,), "skipped": (list,),
}  # fmt: skip
SPLIT: Schema = {"pairs": (int,), "shards": (list,)}
SHARD: Schema = {"name": (str,), "pairs": (int,), "bytes": (int,), "sha256": (str,)}
INPUT: Schema = {"name": (str,), "images": (int,), "segments": (int,), "fingerprint": (str,)}
SKIPPED: Schema = {"reason": (str,)}  # beside it image, annotation, or both

RECORD: Schema = {
    "format": (int,), "index": (int,), "width": (int,), "height": (int,), "objects": (list,),
    "background": (dict,), "styles": (dict,), "rng": (list,),
}  # fmt: skip
OBJECT: Schema = {
    "label": (int,), "target_from_source": (list,), "category": (str, NONE), "segment": (dict,),
    "blend": (str,),
}  # fmt: skip
SEGMENT: Schema = {
    "dataset": (str,), "image": (str,), "annotation": (int, str, NONE), "proposer": (str, NONE),
}  # fmt: skip
BACKGROUND: Schema = {"dataset": (str,), "image": (str,)}
STYLES: Schema = {"source": (dict, NONE), "target": (dict, NONE)}
STYLE: Schema = {"method": (str,)}

# What readers ask of those who write less than that, as older versions did.
TOLD: Schema = {
    "config": (dict, ABSENT), "inputs": (list, ABSENT), "skipped": (list, ABSENT),
    "rejected": (dict, ABSENT),
}  # fmt: skip
ORIGIN_READ: Schema = dict.fromkeys(("dataset", "image", "sha256"), (str, NONE, ABSENT))
