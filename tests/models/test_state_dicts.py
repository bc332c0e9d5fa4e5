"""How weights are fetched, kept and unwrapped. What is refused: see the tests of their readers."""

import http.client
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.error import HTTPError

import pytest
import torch
from torch import nn

from sztrain.errors import InputError, UnavailableError
from sztrain.models import state_dicts
from sztrain.models.state_dicts import (
    bare_weights,
    cannot_download,
    check_finite,
    download,
    load_strictly,
    require_answer,
)


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/breaks_off":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"half")
        elif self.path == "/silent":
            time.sleep(0.6)
        elif "urllib" in self.headers["User-Agent"]:
            self.send_error(403)
        else:
            super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def site(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path))
    Thread(target=server.serve_forever, args=(0.01,)).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_download(site, tmp_path, capfd):
    content = bytes(range(256)) * 1000
    (tmp_path / "net.pth").write_bytes(content)
    assert download(f"{site}/net.pth") == content
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("page", "error"),
    [
        ("none.pth", HTTPError),
        ("breaks_off", http.client.IncompleteRead),
        ("silent", TimeoutError),
    ],
)
def test_download_that_fails(site, monkeypatch, page, error):
    monkeypatch.setattr(state_dicts, "SILENCE", 0.2)
    with pytest.raises(error) as caught:
        download(f"{site}/{page}")
    if isinstance(caught.value, HTTPError):
        caught.value.close()


def test_any_answer_is_an_answer(site, tmp_path):
    (tmp_path / "index.html").write_text("welcome")
    require_answer(site)
    require_answer(f"{site}/none")


def test_no_answer_is_noticed(unused_port):
    with pytest.raises(OSError, match="refused"):
        require_answer(f"http://127.0.0.1:{unused_port}")


@pytest.fixture
def unused_port():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.server_close()
    return server.server_port


def test_message_says_why_and_what_to_do(tmp_path, unused_port):
    with pytest.raises(OSError, match="refused") as caught:
        download(f"http://127.0.0.1:{unused_port}/x.pth")
    message = cannot_download("M1", "http://x", tmp_path / "a" / "x.pth", tmp_path, caught.value)
    assert isinstance(message, UnavailableError)
    assert isinstance(message, InputError)
    text = str(message)
    assert "Connection refused)" in text
    assert "urlopen" not in text
    assert f"put them at {tmp_path}/a/x.pth" in text
    assert text.endswith("the folder that has a/x.pth")


@pytest.mark.parametrize("key", [None, "state_dict", "model_state_dict", "model", "net"])
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "1.", "module.0."])
def test_bare_weights(key, prefix):
    weights = {"conv.weight": torch.zeros(2), "0.bias": torch.ones(1), "net.bias": torch.ones(1)}
    saved = {prefix + name: tensor for name, tensor in weights.items()}
    found = bare_weights(saved if key is None else {"epoch": 1, key: saved}, "x")
    assert found.keys() == weights.keys()
    assert all(found[name] is weights[name] for name in weights)


@pytest.mark.parametrize(
    "value", [[1], {}, {"state_dict": 3}, {"state_dict": {}}, {"net": {"a": 1}}], ids=str
)
def test_bare_weights_of_something_else(value):
    with pytest.raises(InputError, match="x holds no state dict"):
        bare_weights(value, "x")


def test_infinities_are_refused_in_parameters_alone():
    """Some defences keep a threshold of infinity."""
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    net.register_buffer("threshold", torch.tensor(torch.inf))
    check_finite(net, "it")
    load_strictly(net, net.state_dict(), "it")
    net.threshold.fill_(torch.nan)
    with pytest.raises(InputError, match="NaN or infinite in 1 of 8 entries, first in threshold"):
        check_finite(net, "it")
    net.threshold.fill_(0)
    with torch.no_grad():
        net[1].bias[0] = -torch.inf
    with pytest.raises(InputError, match=r"first in 1\.bias"):
        load_strictly(net, net.state_dict(), "it")
