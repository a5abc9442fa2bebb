"""Articles: Markdown files with a title, a description and perhaps a date."""

from datetime import date
from pathlib import Path

import pytest

from pipehandler.web.articles import ArticleError, read_articles

HEAD = '+++\ntitle = "A title"\ndescription = "A sentence."\n+++\n'


def written(folder: Path, name: str, text: str | bytes) -> Path:
    """Write an article into a folder of the blog, and return the folder."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


def test_an_article_is_read(tmp_path: Path) -> None:
    text = '+++\ntitle = "Über Post"\ndescription = "Ein Satz."\ndate = 2026-11-27\n+++\n# Eins\n\n*zwei* & [drei](https://example.com)\n'
    (article,) = read_articles(written(tmp_path, "de/ueber-post.md", text))
    assert article[:5] == ("ueber-post", "de", "Über Post", "Ein Satz.", date(2026, 11, 27))
    assert str(article.body) == '<h1>Eins</h1>\n<p><em>zwei</em> &amp; <a href="https://example.com">drei</a></p>\n'


def test_the_newest_article_is_first_and_one_without_a_date_last(tmp_path: Path) -> None:
    for slug, line in (("old", "date = 2025-01-01\n"), ("none", ""), ("new", "date = 2026-01-01\n")):
        written(tmp_path, f"en/{slug}.md", f'+++\ntitle = "T"\ndescription = "D"\n{line}+++\n')
    assert [article.slug for article in read_articles(tmp_path)] == ["new", "old", "none"]


def test_line_ends_of_windows_and_a_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    (article,) = read_articles(written(tmp_path, "en/a.md", ("\ufeff" + HEAD + "text\n").replace("\n", "\r\n")))
    assert str(article.body) == "<p>text</p>\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ("a <b onclick=x>b</b>", "<p>a &lt;b onclick=x&gt;b&lt;/b&gt;</p>"),
        ("[a](javascript:alert(1))", "<p>[a](javascript:alert(1))</p>"),
        ("| a |\n|---|\n| b |", "<td>b</td>"),
    ],
)
def test_html_is_shown_as_text(tmp_path: Path, text: str, shown: str) -> None:
    (article,) = read_articles(written(tmp_path, "en/a.md", HEAD + text))
    assert shown in str(article.body)
    assert "<script" not in article.body


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("xx/a.md", HEAD, "'xx' is not a language of the page; expected one of ar de"),
        ("en/A b.md", HEAD, "'A b' cannot be a path; use a-z, 0-9 and single hyphens"),
        ("en/..md", HEAD, "'.' cannot be a path"),
        ("en/a.md", b"+++\n\xff", "not UTF-8 at octet 4"),
        ("en/a.md", "# A title\n", "must begin with its title and description between two lines +++"),
        ("en/a.md", "+++\ntitle = A\n+++\n", "between the lines +++: Invalid value"),
        (
            "en/a.md",
            '+++\ntitle = "A"\n+++\n',
            'description is None; expected a text, such as description = "Some words"',
        ),
        ("en/a.md", '+++\ntitle = 1\ndescription = "D"\n+++\n', "title is 1; expected a text"),
        ("en/a.md", '+++\ntitle = " "\ndescription = "D"\n+++\n', "title is ' '; expected a text"),
        (
            "en/a.md",
            HEAD.replace("+++\n", '+++\ndate = "today"\n', 1),
            "date is 'today'; expected a date without quotes",
        ),
        ("en/a.md", HEAD.replace("+++\n", "+++\ndate = 2026-01-01T00:00:00\n", 1), "expected a date without quotes"),
        ("en/a.md", HEAD.replace("+++\n", '+++\nauthor = "me"\n', 1), "unknown key 'author'"),
    ],
)
def test_an_article_that_cannot_be_used_is_named(tmp_path: Path, name: str, text: str | bytes, reason: str) -> None:
    with pytest.raises(ArticleError) as failure:
        read_articles(written(tmp_path, name, text))
    assert str(failure.value).startswith(f"{tmp_path / name}: ")
    assert reason in str(failure.value)


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    written(tmp_path, "README.md", "for authors")
    written(tmp_path, "en/picture.png", b"\x89PNG")
    written(tmp_path, ".git/a.md", "not an article")
    assert read_articles(tmp_path) == []
