"""What an offline run of W&B left on disk."""

import hashlib
import json
import struct

import torch
from PIL import Image
from wandb.proto import wandb_internal_pb2


def run_records(path):
    """Records of a W&B run file: LevelDB's log format behind a header of 7 bytes."""
    data, position, record = path.read_bytes(), 7, b""
    while position < len(data):
        room = 32768 - position % 32768
        if room < 7:  # no header fits into the rest of the block
            position += room
            continue
        length, kind = struct.unpack_from("<HB", data, position + 4)
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            parsed = wandb_internal_pb2.Record()
            parsed.ParseFromString(record)
            yield parsed
            record = b""


def logged_items(path):
    """All that a run logged, by key; a table's entries stand below its own."""
    found = {}
    for record in run_records(path):
        for item in record.history.item:
            found[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
    return found


def charts(path):
    """Keys of the charts that a run defines."""
    keys = [item.nested_key for record in run_records(path) for item in record.config.update]
    return {key[2] for key in keys if list(key[:2]) == ["_wandb", "visualize"]}


def by_digest(folder):
    """Files of a folder by the sha256 of their content."""
    return {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in folder.iterdir()}


def load_picture(path):
    with Image.open(path) as picture:
        values = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
        return values.view(picture.height, picture.width, -1).permute(2, 0, 1)


def summary_of(path):
    """The last summary of a run, by key; the parts of a nested entry are joined by a dot."""
    found = {}
    for record in run_records(path):
        for item in record.summary.update:
            value = json.loads(item.value_json)
            key = item.key or ".".join(item.nested_key)
            parts = value.items() if isinstance(value, dict) else ()
            found |= {f"{key}.{part}": inner for part, inner in parts} or {key: value}
    return found
