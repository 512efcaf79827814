"""croissant.json: a dataset's description in MLCommons Croissant 1.0.

Every kind of member is a record set of its own for each split: the nine-digit key and the content.
Records of equal keys make a pair; Croissant cannot join files by their names within a record set.
"""

from typing import Any

_KINDS = {"jpg": ("image/jpeg", "sc:ImageObject"), "png": ("image/png", "sc:ImageObject"),
          "json": ("application/json", "sc:Text"),
          "npy": ("application/octet-stream", "sc:Text")}  # fmt: skip
_PARTS = ("json", "source.jpg", "target.jpg", "source_mask.png", "target_mask.png")
_STYLED = ("source_styled.jpg", "target_styled.jpg")
_GRIDS = ("source_grid.npy", "target_grid.npy")
_TERMS = (
    "citeAs column equivalentProperty extract field fileObject fileProperty fileSet format "
    "includes isLiveDataset jsonPath key md5 parentField path recordSet references regex repeated "
    "replace samplingRate separator source subField transform"
)
_CONTEXT = {
    "@language": "en", "@vocab": "https://schema.org/", "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/", "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/", "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _TERMS.split()},
}  # fmt: skip


def croissant(name: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """The description of a dataset of this name, from its manifest; JSON values."""
    config = manifest["config"]
    parts = (
        *_PARTS, *(_STYLED if config["style"] != "none" else ()),
        *(_GRIDS if config["grid_stride"] is not None else ()),
    )  # fmt: skip
    splits = {split: entry["shards"] for split, entry in manifest["splits"].items()}
    members = [(split, part) for split, shards in splits.items() if shards for part in parts]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset", "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": name, "datePublished": manifest["created"][:10], "version": "1.0.0",
        "description": "Image pairs that share regions, with masks and exact correspondences.",
        "license": "Each image keeps its input's licence: attribution.csv.",
        "url": "README.md",
        "citeAs": "Xi Shen, Alexei A. Efros, Armand Joulin, Mathieu Aubry. Learning "
        "Co-segmentation by Segment Swapping for Retrieval and Discovery. CVPR workshops 2022.",
        "distribution": [
            *(_file(shard) for shards in splits.values() for shard in shards),
            *(_file_set(split, part, splits[split]) for split, part in members),
        ],
        "recordSet": [_record_set(split, part) for split, part in members],
    }  # fmt: skip


def _file(shard: dict[str, Any]) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject", "@id": shard["name"], "name": shard["name"],
        "contentUrl": shard["name"], "contentSize": f"{shard['bytes']} B",
        "encodingFormat": "application/x-tar", "sha256": shard["sha256"],
    }  # fmt: skip


def _identity(split: str, part: str) -> str:
    return f"{split}-{part.replace('.', '-')}"


def _file_set(split: str, part: str, shards: list[dict[str, Any]]) -> dict[str, Any]:
    identity = f"{_identity(split, part)}-files"
    return {
        "@type": "cr:FileSet", "@id": identity, "name": identity,
        "containedIn": [{"@id": shard["name"]} for shard in shards],
        "encodingFormat": _KINDS[part.rpartition(".")[2]][0], "includes": f"*.{part}",
    }  # fmt: skip


def _record_set(split: str, part: str) -> dict[str, Any]:
    identity = _identity(split, part)
    source = {"fileSet": {"@id": f"{identity}-files"}}
    key = {
        "@type": "cr:Field", "@id": f"{identity}/key", "name": f"{identity}/key",
        "dataType": "sc:Text",
        "source": {
            **source, "extract": {"fileProperty": "filename"},
            "transform": {"regex": "^([0-9]{9})\\..*$"},
        },
    }  # fmt: skip
    content = {
        "@type": "cr:Field", "@id": f"{identity}/content", "name": f"{identity}/content",
        "dataType": _KINDS[part.rpartition(".")[2]][1],
        "source": {**source, "extract": {"fileProperty": "content"}},
    }  # fmt: skip
    return {
        "@type": "cr:RecordSet", "@id": identity, "name": identity,
        "key": {"@id": f"{identity}/key"}, "field": [key, content],
    }  # fmt: skip
