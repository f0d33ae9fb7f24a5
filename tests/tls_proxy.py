"""A reverse proxy on loopback with TLS, which accepts only requests with a bearer token, as sites put before MLflow."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import aiohttp
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["TlsProxy"]

NOT_FORWARDED = {"transfer-encoding", "content-encoding", "content-length", "connection", "authorization", "host"}


class TlsProxy:
    """The proxy; its certificate is signed by a CA that no machine trusts.

    Args:
        folder: Folder for the certificates.
        port: Port of the proxy.
        target: URL to which requests are forwarded.
        token: The accepted token.
    """

    def __init__(self, folder: Path, port: int, target: str, token: str) -> None:
        self.url = f"https://127.0.0.1:{port}"
        self.authority = folder / "ca.pem"
        """File with the certificate of the CA."""
        self.rejected = 0
        """Number of requests without the token."""
        self.forwarded = 0
        self._target = target
        self._token = token
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(write_certificates(folder, self.authority))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._call(lambda: self._start(port, context))

    def _call(self, make: Callable[[], object]) -> None:
        asyncio.run_coroutine_threadsafe(make(), self._loop).result(timeout=30)  # type: ignore[arg-type]

    async def _start(self, port: int, context: ssl.SSLContext) -> None:
        application = web.Application(client_max_size=2**30)
        application.router.add_route("*", "/{path:.*}", self._forward)
        self._client = aiohttp.ClientSession(auto_decompress=True)
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port, ssl_context=context).start()

    async def _stop(self) -> None:
        await self._client.close()
        await self._runner.cleanup()

    async def _forward(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {self._token}":
            self.rejected += 1
            return web.Response(status=401, text="who are you?")
        self.forwarded += 1
        headers = {name: value for name, value in request.headers.items() if name.lower() not in NOT_FORWARDED}
        async with self._client.request(
            request.method, f"{self._target}{request.path_qs}", data=await request.read(), headers=headers
        ) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in NOT_FORWARDED}
            return web.Response(status=answer.status, body=await answer.read(), headers=kept)

    def close(self) -> None:
        """Stop the proxy."""
        self._call(self._stop)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


def write_certificates(folder: Path, authority: Path) -> Path:
    """Write the certificate of a new CA, and a certificate for 127.0.0.1 with its key.

    Returns:
        The file with certificate and key.
    """
    now = datetime.datetime.now(datetime.UTC)

    def build(name: str, issuer: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    ca_key, own_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    identity = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    ca = (
        build("test CA", "test CA", ca_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(identity, critical=False)
        .add_extension(usage, critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    own = (
        build("127.0.0.1", "test CA", own_key)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identity), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    authority.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    file = folder / "server.pem"
    key = own_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(key + own.public_bytes(serialization.Encoding.PEM))
    return file
