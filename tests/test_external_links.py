"""Addresses outside the project, in pages, docstrings and metadata: of known hosts; alive, where there is a network (slow)."""

import re
import urllib.error
import urllib.request
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import pytest

FILES = ("*.md", "*.cff", "codemeta.json", "docs/**/*.md", "profiles/*.md", "workflow/schemas/*.json", "src/**/*.py")
# A new host is entered here by somebody who has looked at it; a typing error is not.
HOSTS = {
    "arxiv.org",
    "cocodataset.org",
    "dl.fbaipublicfiles.com",
    "doi.org",
    "download.pytorch.org",
    "github.com",
    "huggingface.co",
    "json-schema.org",
    "labelstud.io",
    "nihcc.app.box.com",
    "openi.nlm.nih.gov",
    "physionet.org",
    "spdx.org",
    "w3id.org",
    "www.kaggle.com",
}
NO_PAGES = (
    "https://physionet.org/files/",
    "https://github.com/facebookresearch/detectron2@",
)  # a folder to sign in for; pip's
GONE = {404, 410}  # other refusals, such as 403 for a program, say nothing about the page
TIMEOUT_SECONDS = 20


def addresses(repository: Path) -> dict[str, set[str]]:
    """Address -> files that name it; DOIs and arXiv numbers count as the addresses that they stand for."""
    found: dict[str, set[str]] = defaultdict(set)
    for file in {path for pattern in FILES for path in repository.glob(pattern)}:
        text = file.read_text(encoding="utf-8")
        named = [url.rstrip(".:,") for url in re.findall(r"https?://[^\s)>\"'`\\|\]]+", text)]
        named += [f"https://doi.org/{doi.rstrip('.,')}" for doi in re.findall(r"\bdoi:? (10\.\d{4,}/[^\s)\"'`,;]+)", text)]
        named += [f"https://arxiv.org/abs/{number}" for number in re.findall(r"\barXiv:? (\d{4}\.\d{4,5})", text)]
        for url in named:
            if not re.match(r"https?://(localhost|127\.|[^/]*\.invalid|example\.)", url):
                found[url].add(str(file.relative_to(repository)))
    return found


def test_addresses_are_of_known_hosts(repository):
    found = addresses(repository)
    assert len(found) > 15
    unknown = {url: files for url, files in found.items() if urlsplit(url).netloc not in HOSTS}
    assert unknown == {}, "look at the page, then add its host to HOSTS"
    assert {urlsplit(url).scheme for url in found} == {"https"}
    assert {urlsplit(url).netloc for url in found} == HOSTS


def answer(url: str) -> int:
    """Status of an address after redirections."""
    request = urllib.request.Request(url, headers={"User-Agent": "Mozilla/5.0 (link check)"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.fixture(scope="module")
def network() -> None:
    """Skip where not one of the large hosts can be reached."""
    reasons = []
    for host in ("doi.org", "github.com"):
        try:
            answer(f"https://{host}")
            return
        except OSError as error:
            reasons.append(f"{host}: {error}")
    pytest.skip(f"no network ({'; '.join(reasons)})")


@pytest.mark.slow
@pytest.mark.usefixtures("network")
def test_addresses_are_alive(repository):
    dead = {}
    for url, files in sorted(addresses(repository).items()):
        if url.startswith(NO_PAGES):
            continue
        try:
            status = answer(url)
        except OSError as error:
            dead[url] = f"{error}, in {', '.join(files)}"
            continue
        if status in GONE:
            dead[url] = f"{status}, in {', '.join(files)}"
    assert dead == {}


def test_a_dead_page_is_told_from_a_refused_one(local_server):
    assert answer(f"{local_server}/gone") in GONE
    assert answer(f"{local_server}/refused") not in GONE
    assert answer(f"{local_server}/there") == 200


@pytest.fixture
def local_server():
    """A server of this machine with one page of each kind."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response({"/gone": 404, "/refused": 403}.get(self.path, 200))
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
