"""HTML that tries to make a request, or a name lookup, without a script: every way of elements, attributes and CSS.

Each has a host of its own below .localhost, which Chromium resolves without a name server, so that a request and a
lookup alike name the payload that made it.
"""

from collections.abc import Iterator

_ATTRIBUTES = (
    "<img src={}>", "<img srcset='{} 1x'>", "<img src=x lowsrc={}>", "<img dynsrc={}>", "<img longdesc={}>", "<img usemap={}>",
    "<img src=data:, onerror=x srcset={}>", "<image src={}>", "<picture><source srcset={}><img></picture>", "<body background={}>",
    "<table background={}><tr background={}><td background={}>x</table>", "<th background={}>", "<div background={}>x</div>",
    "<audio src={} autoplay>", "<audio><source src={}></audio>", "<video src={} autoplay muted>", "<video poster={}>",
    "<video><source src={}><track src={} default></video>", "<iframe src={}></iframe>", "<iframe srcdoc='<img src={}>'></iframe>",
    "<frameset><frame src={}></frameset>", "<embed src={}>", "<object data={}></object>", "<object><param name=src value={}></object>",
    "<object codebase={} classid=x>", "<applet code=x codebase={} archive={}>", "<input type=image src={}>", "<bgsound src={}>",
    "<script src={}></script>", "<script type=module src={}></script>", "<script type=importmap>{\"imports\":{\"a\":\"{}\"}}</script>",
    "<script type=speculationrules>{\"prefetch\":[{\"source\":\"list\",\"urls\":[\"{}\"]}]}</script>", "<html manifest={}>", "<html xmlns={}>",
    "<base href={}/><img src=x><a href=y>x</a>", "<meta http-equiv=refresh content='0;url={}'>", "<meta http-equiv=refresh content='0,{}'>",
    "<meta http-equiv=Link content='<{}>;rel=stylesheet'>", "<meta http-equiv=Set-Cookie content='a=b'><img src={}>",
    "<meta http-equiv=Content-Security-Policy content=\"img-src *; report-uri {}\"><img src=x:x>", "<meta name=referrer content=unsafe-url><img src={}>",
    "<meta property=og:image content={}>", "<meta http-equiv=x-dns-prefetch-control content=on><a href={}>x</a>", "<a href={}>x</a>",
    "<a href={} ping={}>x</a>", "<a href={} target=_top>x</a>", "<area href={} shape=default>", "<form action={}><input autofocus></form>",
    "<form action={}><input type=submit></form>", "<button form=f formaction={}>x", "<del cite={}>x</del>", "<q cite={}>x</q>", "<blockquote cite={}>x",
    "<head profile={}>", "<menuitem icon={}>", "<command icon={}>", "<portal src={}>", "<fencedframe src={}>", "<model src={}>", "<xml src={}>",
    "<isindex action={}>", "<keygen keyparams={}>", "<layer src={}>", "<ilayer src={}>", "<math><mi xlink:href={}>x", "<math><mglyph src={}>",
    "<noscript><img src={}></noscript>", "<template shadowrootmode=open><img src={}></template>", "<!--[if true]><img src={}><![endif]-->",
    "<marquee><img src={}></marquee>", "<select><option style=background:url({})>x</select>", "<dialog open><img src={}>", "<img src='\t{}'>",
    "<img/src={}>", "<IMG SRC={}>", "<img src=\"&#104;ttp://{host}/\">", "<img src=//{host}/>", "<img src=\\\\{host}\\x>", "<img src=/\\{host}/x>",
    "<img crossorigin src={}>", "<img referrerpolicy=unsafe-url src={}>", "<img loading=eager fetchpriority=high src={}>", "<img attributionsrc={} src=x>",
    "<a href=x attributionsrc={}>x</a>", "<link rel=x href={} attributionsrc={}>", "<img src=x><style><img src={}></style>", "<image href={}>",
)  # fmt: skip
_RELATIONS = [
    "stylesheet",
    "alternate",
    "prefetch",
    "preload",
    "modulepreload",
    "dns-prefetch",
    "preconnect",
    "prerender",
    "icon",
    "shortcut",
    "apple-touch-icon",
    "manifest",
    "import",
    "search",
    "next",
    "prev",
    "canonical",
    "author",
    "license",
    "help",
    "pingback",
    "amphtml",
    "subresource",
    "mask-icon",
    "expect",
    "compression-dictionary",
]
_SVG = (
    "<image href={} width=9 height=9 />", "<image xlink:href={} width=9 height=9 />", "<use href={}#x />", "<use xlink:href={}#x />", "<feImage href={} />",
    "<filter id=f><feImage xlink:href={} /></filter><rect filter=url(#f) width=9 height=9 />", "<script href={} />", "<script xlink:href={} />",
    "<rect fill=url({}#x) width=9 height=9 />", "<rect stroke=url({}#x) width=9 height=9 />", "<rect filter=url({}#x) width=9 height=9 />",
    "<rect mask=url({}#x) width=9 height=9 />", "<rect clip-path=url({}#x) width=9 height=9 />", "<path marker-start=url({}#x) d='M0 0L9 9' />",
    "<path marker=url({}#x) d='M0 0L9 9' />", "<text cursor=url({})>x</text>", "<style>@import '{}';</style>", "<style>*{background:url({})}</style>",
    "<image><animate attributeName=href values={} dur=1s /></image>", "<image><set attributeName=href to={} /></image>", "<image><animate attributeName=href by={} /></image>",
    "<foreignObject><img src={} /></foreignObject>", "<linearGradient href={}#x />", "<pattern href={}#x />", "<textPath href={}#x>x</textPath>", "<mpath href={}#x />",
    "<a href={}><text y=20>x</text></a>", "<video src={} />", "<iframe src={} />", "<audio src={} />", "<cursor href={} />", "<font-face-uri href={} />",
    "<rect style='fill:url({}#x)' width=9 height=9 />", "<discard href={} />", "<color-profile href={} />", "<tref href={} />", "<metadata><img src={} /></metadata>",
)  # fmt: skip
_CSS_VALUES = (
    "url({})", "url('{}')", 'url("{}")', "URL({})", "u\\72l({})", "url( {} )", "image-set('{}' 1x)", "-webkit-image-set(url({}) 1x)", "image('{}')",
    "cross-fade(url({}), url({}), 50%)", "-webkit-cross-fade(url({}), url({}), 50%)", "linear-gradient(red,red),url({})", "url({}",
    "src('{}')", "var(--x, url({}))", "/**/url(/**/{})", "paint(x), url({})", "url({}) , none", "element(#x), url({})",
)  # fmt: skip
_CSS_PROPERTIES = [
    "background",
    "background-image",
    "border-image",
    "border-image-source",
    "list-style",
    "list-style-image",
    "cursor",
    "content",
    "mask",
    "mask-image",
    "-webkit-mask",
    "-webkit-mask-image",
    "-webkit-mask-box-image",
    "-webkit-border-image",
    "clip-path",
    "filter",
    "-webkit-filter",
    "backdrop-filter",
    "shape-outside",
    "offset-path",
    "fill",
    "stroke",
    "marker",
    "marker-start",
    "src",
    "behavior",
    "-moz-binding",
    "symbols",
    "@x",
    "--y",
]
_SHEETS = (
    "@import '{}';", "@import url({});", "@import url({}) screen;", "@import url({}) layer(x) supports(display:block);", "@\\69mport '{}';", "@import\t'{}'",
    "@import '{}'", "@font-face{font-family:x;src:url({})}*{font-family:x}", "@font-face{font-family:y;src:local(zz),url({}) format('woff2')}p{font:9px y}",
    "@font-face{font-family:z;src:url({});unicode-range:U+0-ff}p{font-family:z}", "@namespace url({});", "@charset '{}';@import '{}';",
    "@media all{*{background:url({})}}", "@supports(display:block){*{background:url({})}}", "@layer a{*{background:url({})}}", "@container(min-width:1px){*{background:url({})}}",
    "p::before{content:url({})}", "p::marker{content:url({})}", "p::first-letter{background:url({})}", "p::selection{background:url({})}", "a:hover{background:url({})}",
    "a:visited{background:url({})}", "*{background:url({})", "p{--x:url({});background:var(--x)}", "@property --x{syntax:'<url>';inherits:true;initial-value:url({})}p{background:var(--x)}",
    "@keyframes k{from{background:url({})}to{background:url({})}}p{animation:k 1s}", "@counter-style c{system:cyclic;symbols:url({})}", "@page{background:url({})}",
    "@document url({}){*{color:red}}", "@view-transition{navigation:auto}p{background:url({})}", "p{background-image:image-set(url({}) type('image/png'))}",
    "</style><img src={}>", "<!--*{background:url({})}-->", "*{background:url(//{host}/)}", "*{background:url(\\\\{host}/x)}", "html{background:url({})}", "[style]{background:url({})}",
)  # fmt: skip


def leaks(port: int) -> list[tuple[str, str]]:
    """Return (host, HTML) of each: requests go to `http://HOST:port/`, and to https likewise."""
    found = []
    for number, template in enumerate(dict.fromkeys(_templates())):
        scheme = "https" if number % 2 else "http"
        host = f"leak-{number}.localhost"
        html = template.replace("{host}", f"{host}:{port}").replace("{}", f"{scheme}://{host}:{port}/x")
        found.append((host, html))
    return found


def _templates() -> Iterator[str]:
    yield from _ATTRIBUTES
    for relation in _RELATIONS:
        for kind in ("", " as=image", " as=script", " as=font crossorigin", " as=fetch", " as=document"):
            yield f"<link rel='{relation}'{kind} href={{}}>"
    for inner in _SVG:
        yield f"<svg>{inner}</svg>"
        yield f"<svg xmlns=http://www.w3.org/2000/svg xmlns:xlink=http://www.w3.org/1999/xlink><g>{inner}</g></svg>"
        yield f"<math><mtext><svg>{inner}</svg></mtext></math>"
    for name in _CSS_PROPERTIES:
        for value in _CSS_VALUES:
            quoted = value.replace('"', "&quot;")
            yield f'<p style="{name}:{quoted}">x</p>'
    for sheet in _SHEETS:
        yield f"<style>{sheet}</style><p style='color:red'><a href=#>x</a></p>"
        yield f"<style media=all type=text/css>\n{sheet}\n</style><p>x</p>"
        yield f"<svg><style>{sheet}</style></svg><p>x</p>"
        quoted = sheet.replace("'", "&#39;")
        yield f"<link rel=stylesheet href='data:text/css,{quoted}'><p>x</p>"
    yield "<ul style='list-style:url({})'><li>x</ul>"
