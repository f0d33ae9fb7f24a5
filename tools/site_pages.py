"""MkDocs hook: adds the pages of the repository's root and an API reference to the documentation site.

Pages link to each other by their paths in the repository. The hook translates these links to paths of the site, and
adds linked files that are not pages, such as ``cluster.yaml``, under ``source/``.
"""

import posixpath
import re
from pathlib import Path

from check_links import LINK
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
ROOT_PAGES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
PACKAGES = ("clinie_core", "search")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Append the pages of the API reference to the navigation."""
    assert config.nav is not None
    config.nav.append({"API reference": [{name: f"api/{name}.md"} for name in list_packages()]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the root's pages, the API reference and linked source files."""
    for name, uri in ROOT_PAGES.items():
        files.append(File.generated(config, uri, content=(ROOT / name).read_text(encoding="utf-8")))
    for name, modules in list_packages().items():
        content = "\n\n".join([f"# {name}", *(f"::: {module}" for module in modules)])
        files.append(File.generated(config, f"api/{name}.md", content=content))
    pages = [ROOT / source for source in ROOT_PAGES] + sorted((ROOT / "docs").rglob("*.md"))
    linked = {target for page in pages for target in list_linked_files(page)}
    for target in sorted(linked):
        path = target.relative_to(ROOT).as_posix()
        files.append(File.generated(config, f"source/{path}", abs_src_path=str(target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Translate the links of a page from paths in the repository to paths in the site."""
    source = next((ROOT / name for name, uri in ROOT_PAGES.items() if uri == page.file.src_uri), None)
    source = source or ROOT / "docs" / page.file.src_uri
    folder = posixpath.dirname(page.file.src_uri)

    def translate(match: re.Match[str]) -> str:
        link = match[1] or match[2]
        path, separator, anchor = link.partition("#")
        target = (source.parent / path).resolve()
        if not path or re.match(r"[a-z][a-z+.-]*:", link) or not target.is_file():
            return match[0]
        uri = posixpath.relpath(site_uri(target), folder or ".")
        return match[0].replace(link, uri + separator + anchor)

    return LINK.sub(translate, markdown)


def list_packages() -> dict[str, list[str]]:
    """Return the modules of each package that has documentation, by the package's name."""
    packages: dict[str, list[str]] = {}
    for file in sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        if file.name == "__init__.py":
            packages.setdefault(".".join(parts[:-1]), []).insert(0, ".".join(parts[:-1]))
        elif file.name != "__main__.py":
            packages.setdefault(".".join(parts[:-1]), []).append(".".join(parts))
    return packages


def list_linked_files(page: Path) -> list[Path]:
    """Return the files of the repository that a page links to and that are not pages themselves."""
    links = [match[1] or match[2] for match in LINK.finditer(page.read_text(encoding="utf-8"))]
    targets = [(page.parent / link.partition("#")[0]).resolve() for link in links if ":" not in link]
    return [target for target in targets if target.is_file() and target.suffix != ".md"]


def site_uri(target: Path) -> str:
    """Return the path within the site of a file of the repository."""
    path = target.relative_to(ROOT).as_posix()
    if path in ROOT_PAGES:
        return ROOT_PAGES[path]
    return path.removeprefix("docs/") if target.suffix == ".md" else f"source/{path}"
