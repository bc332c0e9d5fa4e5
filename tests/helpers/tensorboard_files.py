"""What TensorBoard's event files hold."""

import io
import struct

import numpy as np
from PIL import Image


def values_of(folder):
    """Pairs of a step and a value, by tag, over all event files below a folder."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for path in sorted(folder.rglob("events.out.tfevents.*")):
        data, position = path.read_bytes(), 0
        while position < len(data):
            (length,) = struct.unpack_from("<Q", data, position)  # then its checksum, 4 bytes
            event = Event()
            event.ParseFromString(data[position + 12 : position + 12 + length])
            position += 12 + length + 4
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value))
    return found


def picture(value):
    return np.asarray(Image.open(io.BytesIO(value.image.encoded_image_string)).convert("RGB"))
