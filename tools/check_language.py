"""Check the language of docstrings, comments, messages and documentation.

Usage: ``python tools/check_language.py [--long-sentences] [PATH ...]``. The default is the whole repository.

These are errors: a docstring whose first line is not an imperative or a noun phrase, a function whose name starts with
a participle, a phrase of ``PHRASES``, and a Markdown line of more than 100 characters. Each error is one line,
``path:line: message (remedy)``. Sentences of more than 30 words are counted, and listed with ``--long-sentences``, but
are not errors.
"""

import argparse
import ast
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

MARKDOWN_LINE_LENGTH = 100
LONG_SENTENCE_WORDS = 30
DEFAULT_PATHS = (
    "clinie_core search tests benchmarks tools spaces docs README.md ARCHITECTURE.md CONTRIBUTING.md CHANGELOG.md "
    "Makefile pyproject.toml mkdocs.yml cluster.yaml cluster.local.yaml"
).split()
TEXT_SUFFIXES = {".py", ".md", ".yaml", ".yml", ".toml", ".sh", ""}
EXEMPT_FILES = {
    "tools/check_language.py",  # holds the phrases
    "tests/unit/test_check_language.py",
    "clinie_core/data/corpora/synthetic.py",  # holds text of clinical notes
    "clinie_core/data/corpora/synthetic_words.py",
    "clinie_core/formulations/relation_question.py",  # holds the wording of a model input
}

BANNED_OPENERS = frozenset(
    "what who whom whose how whether so which by that when where why nothing somebody nobody those these its their "
    "then as of within not if for from with".split()
)
NON_VERBS = frozenset(
    "the a an one two three four some every each all both another further first most many any this it no "
    "everything something counts tokens scores".split()
)
PARTICIPLES_ALLOWED = frozenset("embed feed need shed speed seed proceed exceed bring ping string".split())
IRREGULAR_PARTICIPLES = frozenset(
    "begun built chosen drawn found given gone grown held hidden kept known left lost made met seen sent shown spent "
    "taken told written".split()
)
PLURALS_ALLOWED = frozenset("focus bias alias canvas".split())
THIRD_PERSON_VERBS = frozenset(
    "asks adds builds checks collects computes creates draws ends extracts finds gives holds keeps knows lays lets "
    "looks makes parses predicts puts reads returns runs samples sends shows starts suggests takes tells trains turns "
    "waits writes".split()
)

# Pattern and what to write in its place. A space in a pattern matches line ends and comment signs, too.
PHRASES: dict[str, str] = {
    r"how-manieth": "index",
    r"(come|comes|came) to (?!light)": "results in, is",
    r"(go|goes|going|gone|went) on": "continue, resume",
    r"(is|are|was|were|be|been) gone": "is unavailable, was removed, has ended",
    r"(go|goes|going|gone|went) away": "become unavailable",
    r"(is|are|was|were|be) away": "is unavailable",
    r"(send|sends|sent) (\w+ )?home": "shut down, stop",
    r"nothing follows": "no-op, nothing to do",
    r"(stands?|stood|standing)(?! ?-)": "is, represents",
    r"(keep|keeps|kept) (every|all|the|its) (rule|rules)": "pass the policy",
    r"in whole": "atomically, completely",
    r"thin (process|client|trial|actor)(es|s)?": "Tune actor",
    r"trial clients?": "trial trainable",
    r"(trial'?s|its|the|waiting) clients?(?= (wait|leave|ask|that))": "trainable",
    r"shelf|shelves": "cache",
    r"leftovers?": "orphan processes, stale files",
    r"(job )?boards?": "queue",
    r"desks?": "channel",
    r"strangers?": "another user, an unknown process",
    r"doors?": "interface, entry point",
    r"rooms?": "package, space, memory",
    r"house": "layout",
    r"(?<!dist\.group\.)world": "context, distributed context",
    r"life": "generation, lifetime",
    r"bookkeep(er|ers|ing)": "checkpoint manager",
    r"footprints?": "memory estimate",
    r"(is|are|was|were|be|been) told": "is notified, receives",
    r"(error|exception)('s)?( own)? words|words of (an|the) error": "message",
    r"in words(?!:)": "as text",
    r"(by|of) (which|whom|whose)": "a separate, simple sentence",
    r"ends? as what": "ends with the status",
    r"what (it|he|they) (was|were)": "the concrete noun",
    r"what there is": "the concrete noun",
    r"what is no": "is not a",
    r"what (is|was|are|were) (written|asked|predicted|annotated|there|done|measured|kept|wanted)": "a noun",
    r"in place of": "instead of",
    r"(seconds?|requests|documents|tokens|label|row) an? (second|trial|study|word|epoch|document)": "per",
    r"(that|which) (is|are) no(?! longer)": "that is not a",
    r"so (many|often|few|much|long)(?! as)": "the number",
    r"somebody|whoever": "a user, a caller, a listener",
    r"nobody": "no user, no process",
    r"anew": "again",
    r"for good": "permanently",
    r"(hand|hands|handed|handing) (in|out|over)": "submit, return, pass",
    r"(give|gives|gave|given|giving) (out|back)": "assign, return",
    r"stretch(es)?": "span, range",
    r"under way": "running",
    r"now and then": "occasionally",
    r"(know|knows|knew) (no|nothing|neither)": "does not depend on",
    r"(lay|lays|laid)": "put, place",
    r"(speak|speaks|spoke) of": "describe",
    r"is to be (had|found|seen)": "is in",
    r"doubt": "uncertainty",
    r"begun": "started",
    r"examination": "check",
    r"whence|thence|whereof|thereof|wherein|therein|whereby|lest|shall|ought|naught": "modern English",
    r"takes? with (it|them)": "also removes",
    r"(lie|lies|lay) (within|beside|in|between|near|at)": "is in, is next to",
    r"(at|in) the (place|places) where": "where",
    r"it is that": "remove",
    r"by so many|by how much|by how many": "amount, number",
    r"as (if|though) nothing (had )?happened": "with the same result",
    r"of (one's|its|their) own accord": "automatically",
    r"owns? up": "reports",
    r"falls? (due|silent)": "the concrete event",
    r"(each|one) after (another|the other)": "one at a time",
    r"where things are": "locations, paths",
    r"for (the|its) sake": "for",
    r"(no|not) a word": "no text",
    r"unheard|unsaid|untold": "unreported",
    r"in vain": "without a result",
    r"at its end": "when it ends",
    r"(much|far) the (same|most|best)": "about the same",
    r"of old": "earlier",
    r"a good deal": "much",
    r"the like": "similar",
}
BETWEEN_WORDS = r"[\s#]+"
PATTERNS = [
    (re.compile(rf"(?<![\w-])(?:{pattern.replace(' ', BETWEEN_WORDS)})(?![\w-])", re.IGNORECASE), advice)
    for pattern, advice in PHRASES.items()
]
FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)")
LINK_TARGET = re.compile(r"\]\([^)]*\)")


class Finding(NamedTuple):
    """One violation of the writing rules."""

    path: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


def list_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the checked files under paths, in order; a path that does not exist is skipped."""
    for path in paths:
        if path.is_file():
            yield path
            continue
        for file in sorted(path.rglob("*")):
            hidden = any(part.startswith((".", "__pycache__")) for part in file.parts)
            if file.is_file() and not hidden and file.suffix in TEXT_SUFFIXES - {""}:
                yield file


def check_files(paths: Iterable[Path]) -> list[Finding]:
    """Return the findings of all files under paths, sorted by file and line."""
    findings: list[Finding] = []
    for file in list_files(paths):
        name = file.as_posix()
        text = file.read_text(encoding="utf-8")
        if not any(name.endswith(exempt) for exempt in EXEMPT_FILES):
            findings += check_phrases(name, text)
        if file.suffix == ".py":
            findings += check_docstrings(name, text)
            if "tests" not in file.parts:
                findings += check_function_names(name, text)
        if file.suffix == ".md":
            findings += check_line_lengths(name, text)
    return sorted(findings)


def check_phrases(name: str, text: str) -> list[Finding]:
    """Return the banned phrases of a text; code in Markdown is skipped."""
    if name.endswith(".md"):
        text = blank_code(text)
    return [
        Finding(
            name,
            text.count("\n", 0, match.start()) + 1,
            f"banned phrase {' '.join(match[0].split())!r} (use: {advice})",
        )
        for pattern, advice in PATTERNS
        for match in pattern.finditer(text)
    ]


def check_docstrings(name: str, text: str) -> list[Finding]:
    """Return the docstrings of Python source whose first word breaks the rules for its kind of object."""
    findings = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            docstring = ast.get_docstring(node)
            fault = find_opener_fault(docstring, needs_imperative(node)) if docstring else None
            if fault:
                expression = node.body[0]
                findings.append(Finding(name, expression.lineno, fault))
    return findings


def check_function_names(name: str, text: str) -> list[Finding]:
    """Return the functions of Python source whose name starts with a participle; properties are nouns."""
    return [
        Finding(name, node.lineno, f"function name {node.name!r} starts with a participle (use: a verb)")
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and is_participle(node.name.strip("_").split("_")[0])
        and not any("property" in ast.unparse(decorator) for decorator in node.decorator_list)
    ]


def is_participle(word: str) -> bool:
    """Return whether a lower-case word is a participle, by its ending or by a list of irregular forms."""
    regular = word.endswith(("ing", "ed")) and word not in PARTICIPLES_ALLOWED
    return regular or word in IRREGULAR_PARTICIPLES


def needs_imperative(node: ast.AST) -> bool:
    """Return whether a docstring has to be an imperative: functions, but not tests, fixtures and properties."""
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or node.name.startswith("test_"):
        return False
    decorators = " ".join(ast.unparse(decorator) for decorator in node.decorator_list)
    return not re.search(r"property|fixture", decorators)


def find_opener_fault(docstring: str, imperative: bool) -> str | None:
    """Return what is wrong with the first word of a docstring, or None."""
    first_line = docstring.lstrip().split("\n")[0]
    match = re.match(r"[A-Za-z][A-Za-z'-]*", first_line)
    if not match:
        return f"docstring starts with {first_line[:20]!r} (use: a verb such as 'Return')" if imperative else None
    word = match[0]
    lower = word.lower()
    if lower in BANNED_OPENERS:
        remedy = "an imperative such as 'Return whether'" if imperative else "a noun phrase such as 'Number of'"
        return f"docstring starts with {word!r} (use: {remedy})"
    if not imperative:
        return f"docstring starts with a verb {word!r} (use: a noun phrase)" if lower in THIRD_PERSON_VERBS else None
    plural = lower.endswith(("s", "'s")) and not lower.endswith("ss") and lower not in PLURALS_ALLOWED
    if lower in NON_VERBS or is_participle(lower) or plural:
        return f"function docstring starts with {word!r} (use: an imperative such as 'Return', 'Write', 'Split')"
    return None


def check_line_lengths(name: str, text: str) -> list[Finding]:
    """Return the Markdown lines that are too long; code, tables and lines with a link or URL may be longer."""
    return [
        Finding(name, number, f"line has {len(line)} characters (use: at most {MARKDOWN_LINE_LENGTH})")
        for number, line in enumerate(blank_fences(text).split("\n"), 1)
        if len(line) > MARKDOWN_LINE_LENGTH and not re.search(r"^\s*\||\]\(|https?://", line)
    ]


def find_long_sentences(file: Path) -> list[Finding]:
    """Return the sentences of a Markdown file or of a module's docstrings with more than 30 words."""
    name, text = file.as_posix(), file.read_text(encoding="utf-8")
    findings = []
    for line, paragraph in list_paragraphs(name, text):
        for sentence in re.split(r"(?<=[.?!])\s+", paragraph):
            words = len(re.findall(r"[\w'`-]+", sentence))
            if words > LONG_SENTENCE_WORDS:
                findings.append(Finding(name, line, f"sentence of {words} words: {' '.join(sentence.split())[:60]}..."))
    return findings


def list_paragraphs(name: str, text: str) -> Iterator[tuple[int, str]]:
    """Yield line number and text of each paragraph of Markdown or of Python's docstrings."""
    if name.endswith(".py"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                docstring = ast.get_docstring(node)
                if docstring:
                    for paragraph in docstring.split("\n\n"):
                        yield node.body[0].lineno, paragraph
    elif name.endswith(".md"):
        text = CODE_SPAN.sub("code", blank_fences(text))
        line = 1
        for paragraph in re.split(r"(\n\s*\n|\n(?=\s*(?:[-*|#]|\d+\.) ?))", text):
            if paragraph.strip() and not paragraph.strip().startswith("|"):
                yield line, LINK_TARGET.sub("]", paragraph)
            line += paragraph.count("\n")


def blank_fences(text: str) -> str:
    """Return Markdown with fenced code removed; line numbers stay the same."""
    return FENCE.sub(lambda match: "\n" * match[0].count("\n"), text)


def blank_code(text: str) -> str:
    """Return Markdown without fenced code, code spans and link targets; line numbers stay the same."""
    without_spans = CODE_SPAN.sub("`code`", blank_fences(text))
    return LINK_TARGET.sub("]", without_spans)


def main() -> int:
    """Print all findings of the paths on the command line; exit with 1 if there are any."""
    parser = argparse.ArgumentParser(description="Check docstrings, phrases and Markdown line lengths.")
    parser.add_argument("paths", nargs="*", type=Path, help="files and folders; default: the whole repository")
    parser.add_argument("--long-sentences", action="store_true", help="list the sentences of more than 30 words")
    arguments = parser.parse_args()
    root = Path(__file__).resolve().parent.parent
    paths = arguments.paths or [root / path for path in DEFAULT_PATHS]
    findings = check_files(paths)
    for finding in findings:
        print(finding)
    long_sentences = [long for file in list_files(paths) for long in find_long_sentences(file)]
    if arguments.long_sentences:
        for long in long_sentences:
            print(long)
    print(f"{len(findings)} findings, {len(long_sentences)} long sentences (not errors)", file=sys.stderr)
    return 1 if findings else 0


if __name__ == "__main__":
    raise SystemExit(main())
