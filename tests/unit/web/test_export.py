"""The static pages as files for a CDN."""

import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from harness.page import SETTINGS, templates

from pipehandler.cli import cli
from pipehandler.mail.sysexits import EX_CANTCREAT, EX_CONFIG
from pipehandler.web.export import RECORD, export, files_of
from pipehandler.web.languages import LANGUAGES
from pipehandler.web.static_pages import HTML, NAMES, site_pages

FILES = {"de/about.html": b"1", "de/blog/a.html": b"2", "robots.txt": b"3"}


def written(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_files_are_the_pages_and_what_they_use() -> None:
    files = files_of(SETTINGS)
    pages = site_pages(SETTINGS, templates())
    assert {page.file for page in pages.values()} <= set(files)
    assert files["ar/about.html"] == pages["/ar/about"].body
    assert {f"{code}/{name}.html" for code in LANGUAGES for name in NAMES} <= set(files)
    for page in pages.values():
        if page.media_type == HTML:
            for used in re.findall(r'"/(static/[^"#]+)', page.body.decode()):
                assert used in files


def test_an_export_keeps_what_is_unchanged(tmp_path: Path) -> None:
    assert export(FILES, tmp_path) == (3, 0)
    assert written(tmp_path) == {*FILES, RECORD}
    assert (tmp_path / "de" / "blog" / "a.html").read_bytes() == b"2"

    os.utime(tmp_path / "de" / "about.html", (1, 1))
    (tmp_path / "de" / "blog" / "a.html").write_text("cut")
    assert export(FILES, tmp_path) == (1, 0)
    assert (tmp_path / "de" / "about.html").stat().st_mtime == 1
    assert (tmp_path / "de" / "blog" / "a.html").read_bytes() == b"2"


def test_an_export_removes_what_an_earlier_one_wrote_and_nothing_else(tmp_path: Path) -> None:
    export(FILES, tmp_path)
    (tmp_path / "mine.html").write_text("of the operator")
    assert export({"robots.txt": b"4"}, tmp_path) == (1, 2)
    assert written(tmp_path) == {"mine.html", "robots.txt", RECORD}
    assert not (tmp_path / "de").exists()


def test_a_list_of_files_that_points_elsewhere_removes_nothing_there(tmp_path: Path) -> None:
    other = tmp_path / "other.html"
    other.write_text("not ours")
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / RECORD).write_text(f"../other.html\n{other}\n")
    assert export(FILES, folder) == (3, 0)
    assert other.exists()


def test_links_lead_nowhere(tmp_path: Path) -> None:
    """Whoever may write into the folder, such as a web server that was taken over, has no file elsewhere changed or removed."""
    other = tmp_path / "other"
    other.mkdir()
    victim = other / "about.html"
    victim.write_text("not ours")
    folder = tmp_path / "export"
    (folder / "de").mkdir(parents=True)
    (folder / "de" / ".about.html.new").symlink_to(victim)
    (folder / "robots.txt").symlink_to(victim)
    (folder / RECORD).write_bytes(b"it/about.html\n\xff\n")
    (folder / "it").symlink_to(other)
    assert export(FILES, folder) == (3, 0)
    assert (folder / "de" / "about.html").read_bytes() == b"1"
    assert not (folder / "robots.txt").is_symlink()

    (folder / "fr").symlink_to(other)
    with pytest.raises(OSError, match="fr"):
        export(FILES | {"fr/about.html": b"5"}, folder)
    assert [(path.name, path.read_text()) for path in other.iterdir()] == [("about.html", "not ours")]


def run(config: Path, folder: Path, text: str) -> Result:
    config.write_text(text)
    return CliRunner().invoke(cli, ["--config", str(config), "web", "export", str(folder)])


SITE = """\
recipients.policy = "known"
[web]
public = true
hosts = ["inbox.example"]
domains = ["tmp.example"]
trusted_proxies = ["127.0.0.1"]
"""


def test_the_command_reports_what_it_did(tmp_path: Path) -> None:
    first = run(tmp_path / "config.toml", tmp_path / "site", SITE)
    assert first.exit_code == 0, first.output
    pages = len([name for name in written(tmp_path / "site") if name.endswith(".html")])
    others = len(written(tmp_path / "site")) - pages - 1
    assert re.fullmatch(
        rf"{tmp_path}/site: {pages} pages and {others} other files in \d+\.\d\d s; {pages + others} written, 0 removed\n",
        first.output,
    )
    assert "https://inbox.example/de/about" in (tmp_path / "site" / "sitemap.xml").read_text()
    second = run(tmp_path / "config.toml", tmp_path / "site", SITE)
    assert second.output.endswith("; 0 written, 0 removed\n")


def test_the_operators_articles_take_the_place_of_ours(tmp_path: Path) -> None:
    folder = tmp_path / "articles" / "de"
    folder.mkdir(parents=True)
    (folder / "hallo.md").write_text('+++\ntitle = "Hallo"\ndescription = "Ein Satz."\n+++\n\nText\n')
    result = run(tmp_path / "config.toml", tmp_path / "site", f'{SITE}articles = "{tmp_path}/articles"\n')
    assert result.exit_code == 0, result.output
    assert {name for name in written(tmp_path / "site") if "blog" in name} == {"de/blog.html", "de/blog/hallo.html"}


@pytest.mark.parametrize(
    ("addition", "status", "text"),
    [
        ("ttl = 90000\n", EX_CONFIG, "web.max_life = 86400 is shorter than web.ttl = 90000"),
        ('articles = "{folder}/articles"\n', EX_CONFIG, "it must begin with its title and description"),
    ],
)
def test_what_cannot_be_exported_is_refused(tmp_path: Path, addition: str, status: int, text: str) -> None:
    (tmp_path / "articles" / "en").mkdir(parents=True)
    (tmp_path / "articles" / "en" / "a.md").write_text("no title")
    result = run(tmp_path / "config.toml", tmp_path / "site", SITE + addition.format(folder=tmp_path))
    assert (result.exit_code, text in result.output) == (status, True), result.output
    assert not (tmp_path / "site").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run(tmp_path / "config.toml", tmp_path / "file" / "site", SITE)
    assert result.exit_code == EX_CANTCREAT
    assert f"{tmp_path}/file" in result.output
