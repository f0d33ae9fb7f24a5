"""Hostile and unlucky requests against the HTTP server, whose model is replaced by rules."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest

from tests.processes import end_with_children
from tests.text_scan import find_words
from tests.tls_proxy import write_certificates

ROOT = Path(__file__).parents[2]
CANARY = "Canary Smith"


def start_service(port: int, folder: Path, *access: str) -> subprocess.Popen[bytes]:
    """Start the stub service and wait until it is ready."""
    program = [sys.executable, "-m", "tests.stub_service", str(port), str(folder), *access]
    process = subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, stderr=(folder / "err").open("wb"))
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n", (folder / "err").read_text()
    return process


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="module")
def process(folder: Path, free_port: Callable[[], int]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    running = start_service(port := free_port(), folder)
    yield running, port
    assert end_with_children(running) == []
    assert running.returncode == 0
    assert CANARY not in (folder / "err").read_text()


@pytest.fixture
def url(process: tuple[subprocess.Popen[bytes], int]) -> str:
    return f"http://127.0.0.1:{process[1]}"


def predict(url: str, *texts: str) -> httpx.Response:
    # httpx rejects a lone surrogate; ASCII JSON can carry it.
    body = json.dumps({"texts": texts}).encode()
    return httpx.post(f"{url}/predict", content=body, headers={"content-type": "application/json"}, timeout=60)


def post(url: str, body: bytes, **headers: str) -> httpx.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(f"{url}/predict", content=body, headers={"content-type": "application/json"} | names, timeout=60)


def open_connection(url: str, data: bytes) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.sendall(data)
    return connection


UNFINISHED = (
    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50000\r\n\r\n{"
)


def test_a_note_with_a_lone_surrogate_fails_alone(url: str) -> None:
    def send(number: int) -> int:
        return predict(url, "note \ud800" if number % 5 == 0 else f"wait 0.01 note {number}").status_code

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(send, range(60))) == [422 if n % 5 == 0 else 200 for n in range(60)]
    (fault,) = predict(url, "fine", "\udfff").json()["faults"]
    assert fault["where"] == "body.texts.1"


def test_a_note_on_which_the_model_fails_does_not_fail_others(url: str) -> None:
    def send(number: int) -> tuple[int, str]:
        answer = predict(url, f"fail {CANARY}" if number % 5 == 0 else f"note {number}")
        return answer.status_code, answer.text

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(send, range(60)))
    assert [status for status, _ in answers] == [500 if n % 5 == 0 else 200 for n in range(60)]
    assert "RuntimeError" in answers[0][1]
    assert CANARY not in answers[0][1]


def test_unfinished_bodies_block_neither_health_nor_predictions_and_time_out(url: str) -> None:
    with ExitStack() as stack:
        stalled = [stack.enter_context(open_connection(url, UNFINISHED)) for _ in range(270)]
        assert httpx.get(f"{url}/healthz", timeout=5).status_code == 200
        assert predict(url, "note").status_code == 200
        for connection in stalled:
            assert connection.recv(4096).startswith(b"HTTP/1.1 408")
            assert connection.recv(4096).endswith(b"}") or connection.recv(1) == b""  # the connection is closed


def test_a_connection_without_headers_is_closed(url: str) -> None:
    with open_connection(url, b"GET /healthz HTTP/1.1\r\nHost: lo") as silent:
        assert silent.recv(10) == b""


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_large_body_is_rejected_before_it_is_buffered(
    url: str, process: tuple[subprocess.Popen[bytes], int], *, chunked: bool
) -> None:
    size = 200 * 2**20
    header = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    start = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{header}\r\n\r\n"
    before = psutil.Process(process[0].pid).memory_info().rss
    with open_connection(url, start.encode()) as connection:
        part = b"x" * 2**16
        try:
            for _ in range(size // len(part)):
                connection.sendall(b"10000\r\n" + part + b"\r\n" if chunked else part)
        except OSError:
            pass  # the server has closed the connection
        else:
            pytest.fail("the server read the whole body")
    assert psutil.Process(process[0].pid).memory_info().rss - before < 20 * 2**20
    answer = post(url, b'{"texts": ["' + b"x" * 100_001 + b'"]}')
    assert (answer.status_code, answer.json()["error"]) == (413, "at most 100,000 bytes in a request")
    assert predict(url, "x" * 10_001).json()["error"] == "texts.0 has 10,001 characters; at most 10,000"


def test_work_of_a_client_that_has_left_is_cancelled(url: str) -> None:
    predicted = read_metric(url, "clinie_batch_notes_sum")
    body = json.dumps({"texts": ["wait 1 note"]}).encode()
    request = UNFINISHED.replace(b"50000", str(len(body)).encode())[:-1] + body
    abandoned = [open_connection(url, request) for _ in range(12)]
    assert read_metric(url, "clinie_waiting_notes") > 0
    for connection in abandoned:
        connection.close()
    while read_metric(url, "clinie_abandoned_requests_total") < 12:
        continue
    assert read_metric(url, "clinie_waiting_notes") == 0
    assert predict(url, "note").status_code == 200
    # The batch that was running when the clients left has one note; the others were not predicted.
    assert read_metric(url, "clinie_batch_notes_sum") - predicted <= 2


def read_metric(url: str, name: str) -> float:
    """Return the value of a metric without labels."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


@pytest.mark.parametrize(
    ("body", "kind", "status", "found"),
    [
        (b'{"texts": ["x"], "Canary Smith": 1, "b": 2}', "application/json", 422, "2 unknown keys"),
        (json.dumps({f"Canary Smith {i}": i for i in range(3000)}).encode(), "application/json", 422, "3,000 unknown"),
        (b'{"texts": ["x"]}', "application/json-patch+json", 415, "send application/json"),
        (b'{"texts": ["x"]}', "text/Canary Smith", 415, "send application/json"),
        (b'{"texts": ["x"]}', "APPLICATION/JSON; charset=utf-8", 200, "NOTE"),
        (b'{"texts": ["Canary Smith', "application/json", 422, "JSON decode error"),
        (b'{"texts": "Canary Smith"}', "application/json", 422, "valid list"),
        (b'["Canary Smith"]', "application/json", 422, "valid dictionary"),
        (b"", "application/json", 422, "Field required"),
        (b"[" * 90_000, "application/json", 422, "the body is not"),
        (b'{"texts": ["\xff Canary Smith"]}', "application/json", 422, "the body is not"),
        (b"NaN", "application/json", 422, "the body is not"),
    ],
    ids=["keys", "many-keys", "patch", "kind", "upper-case", "cut", "string", "list", "empty", "deep", "bytes", "nan"],
)
def test_an_answer_names_no_part_of_the_request(url: str, body: bytes, kind: str, status: int, found: str) -> None:
    answer = post(url, body, content_type=kind)
    assert (answer.status_code, found in answer.text) == (status, True), answer.text
    assert "Canary" not in answer.text
    assert len(answer.content) < 3000


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("attacker.example", 421),
        ("localhost.attacker.example", 421),
        ("", 421),
        ("localhost", 200),
        ("LOCALHOST:80", 200),
        ("192.0.2.7:8000", 200),
        ("[::1]:8000", 200),
    ],
)
def test_a_request_for_another_host_name_is_rejected(url: str, host: str, status: int) -> None:
    assert httpx.get(f"{url}/healthz", headers={"host": host}).status_code == status


def test_the_description_loads_nothing_from_elsewhere(url: str) -> None:
    page = httpx.get(f"{url}/docs").text
    assert "/predict" in page
    assert "http://" not in page.replace("http://HOST:PORT", "")
    assert "https://" not in page
    assert "src=" not in page
    answers = httpx.get(f"{url}/openapi.json").json()["paths"]["/predict"]["post"]["responses"]
    assert {"200", "401", "408", "413", "415", "421", "422", "500", "503", "504"} == set(answers)


def test_other_paths_and_methods(url: str) -> None:
    assert httpx.get(f"{url}/{CANARY}").json() == {"error": "Not Found"}
    assert httpx.get(f"{url}/predict").status_code == 405
    assert httpx.put(f"{url}/predict", content=b"x" * 200_000).status_code == 405
    assert httpx.get(f"{url}/readyz").json() == {"status": "ready"}


def test_an_overloaded_service_says_when_to_try_again(url: str) -> None:
    batches = read_metric(url, "clinie_batch_notes_count")
    with ThreadPoolExecutor(9) as pool:
        answers = [pool.submit(predict, url, "wait 5 note")]
        while read_metric(url, "clinie_batch_notes_count") == batches:
            continue
        answers += [pool.submit(predict, url, *["note"] * 256) for _ in range(8)]
        while read_metric(url, "clinie_waiting_notes") < 2048:
            assert not answers[0].done()
        ready, rejected = httpx.get(f"{url}/readyz"), predict(url, "note")
        assert httpx.get(f"{url}/healthz").status_code == 200
        assert [answer.result().status_code for answer in answers] == [200] * 9
    assert [(r.status_code, r.headers["retry-after"]) for r in (ready, rejected)] == [(503, "1")] * 2
    assert rejected.json()["error"] == "too many notes are waiting"
    assert httpx.get(f"{url}/readyz").status_code == 200


def test_tls_a_token_and_the_time_to_answer(tmp_path: Path, free_port: Callable[[], int]) -> None:
    file = write_certificates(tmp_path, tmp_path / "ca.pem")
    process = start_service(port := free_port(), tmp_path, "s3cret", str(file))
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=context, timeout=60) as client:
        assert [client.get(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]
        for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": "s3cret"}):
            answers = [client.get(path, headers=headers) for path in ("/metrics", "/docs", "/openapi.json")]
            answers.append(client.post("/predict", json={"texts": ["note"]}, headers=headers))
            assert {(a.status_code, a.headers["www-authenticate"]) for a in answers} == {(401, "Bearer")}
        client.headers["Authorization"] = "Bearer s3cret"
        assert client.get("/metrics").status_code == 200
        assert client.post("/predict", json={"texts": ["note"]}).status_code == 200
        late = client.post("/predict", json={"texts": ["wait 3 note"]})
        assert (late.status_code, late.json()["error"]) == (504, "no answer within 1 s")
    with pytest.raises(httpx.TransportError):  # no plain HTTP on the port
        httpx.get(f"http://127.0.0.1:{port}/healthz")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"https://127.0.0.1:{port}/healthz")  # the certificate of an unknown CA
    assert end_with_children(process) == []
    assert process.returncode == 0


def test_sigterm_finishes_requests_in_progress(tmp_path: Path, free_port: Callable[[], int]) -> None:
    process = start_service(port := free_port(), tmp_path)
    url = f"http://127.0.0.1:{port}"
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(predict, url, "wait 0.5 note") for _ in range(6)]
        idle = open_connection(url, b"")
        while read_metric(url, "clinie_waiting_notes") < 5:
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert [answer.result().status_code for answer in answers] == [200] * 6
    process.wait(30)
    idle.close()
    assert process.returncode == 0
    assert (tmp_path / "err").read_bytes() == b""


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_service_that_ends_leaves_no_text(
    how: signal.Signals, tmp_path: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    word = f"zq{uuid.uuid4().hex[:14]}"
    places = [tmp_path / "service", tmp_path / "tmp"]
    for place in places:
        place.mkdir()
    monkeypatch.setenv("TMPDIR", str(places[1]))
    running = start_service(port := free_port(), places[0])
    url = f"http://127.0.0.1:{port}"
    answers = [predict(url, f"note {word}"), predict(url, f"fail {word}"), post(url, f'{{"{word}": ["{word}'.encode())]
    answers += [post(url, f'{{"texts": ["note"], "{word}": 1}}'.encode()), predict(url, f"{word} \ud800")]
    assert [answer.status_code for answer in answers] == [200, 500, 422, 422, 422]
    with open_connection(url, UNFINISHED + word.encode()):
        end_with_children(running, how)
    assert running.stdout is not None
    printed = running.stdout.read().decode() + "".join(answer.text for answer in answers)
    assert find_words({word.encode()}, [*places, Path("/dev/shm")], printed) == set()
    for place in (*places, Path("/dev/shm")):  # the scan finds the word wherever it is
        file = place / f"planted-{word}"
        file.write_text(word.upper(), encoding="ascii")
        assert find_words({word.encode()}, [*places, Path("/dev/shm")]) == {str(file)}
        file.unlink()


def test_a_port_in_use_is_one_line(url: str, tmp_path: Path) -> None:
    port = url.rpartition(":")[2]
    second = [sys.executable, "-m", "tests.stub_service", port, str(tmp_path)]
    done = subprocess.run(second, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1].endswith(
        f"--port: port {port} of 127.0.0.1 is in use; stop the other server or choose another port"
    )
