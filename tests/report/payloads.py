"""Texts that do harm in a page that does not escape them. Each sets window.hit, or loads something."""

HIT = "window.hit=1"
OUTSIDE = "http://127.0.0.1:9/x"
ELEMENTS = (
    f"<script>{HIT}</script>", f"</script><script>{HIT}</script>", f"<SCRIPT>{HIT}</SCRIPT>",
    f"<scr<script>ipt>{HIT}</scr</script>ipt>", f"<script src={OUTSIDE}></script>",
    f"<script/x>{HIT}</script>", f"<script\t>{HIT}</script>", f"<img src=x onerror={HIT}>",
    f"<img/src=x/onerror={HIT}>", f"<img src={OUTSIDE}>", f"<img srcset={OUTSIDE}>", f"<svg onload={HIT}>",
    f"<svg><script>{HIT}</script></svg>", f"<svg><image href={OUTSIDE} /></svg>",
    f"<svg><animate onbegin={HIT} attributeName=x dur=1s>", f"<math><mi//xlink:href=\"data:x,<script>{HIT}</script>\">",
    f"<iframe src=\"data:text/html,<script>parent.{HIT}</script>\">",
    f"<iframe srcdoc=\"<script>parent.{HIT}</script>\">",
    f"<object data={OUTSIDE}></object>", f"<embed src={OUTSIDE}>", f"<video><source onerror={HIT}></video>",
    f"<audio src={OUTSIDE} onerror={HIT}>", f"<body onload={HIT}>", f"<input autofocus onfocus={HIT}>",
    f"<details open ontoggle={HIT}>x</details>", f"<marquee onstart={HIT}>x</marquee>",
    f"<a href='javascript:{HIT}' id=x>x</a>", f"<form action='javascript:{HIT}'><button>x</button></form>",
    f"<base href={OUTSIDE}>", f"<link rel=stylesheet href={OUTSIDE}>", f"<link rel=prefetch href={OUTSIDE}>",
    f"<meta http-equiv=refresh content='0;url={OUTSIDE}'>", f"<style>*{{background:url({OUTSIDE})}}</style>",
    f"<style>@import '{OUTSIDE}';</style>", f"<div style='background:url({OUTSIDE})'>x</div>",
    f"<template><script>{HIT}</script></template>", f"<noscript><img src={OUTSIDE}></noscript>",
    f"<table background={OUTSIDE}>", "<plaintext>", "<xmp>", "<textarea>", "<select><option>", "<!--", "<![CDATA[",
)  # fmt: skip
OUT_OF_THEIR_PLACE = (
    f"\"><svg onload={HIT}>", f"'><img src=x onerror={HIT}>", f"\" onmouseover=\"{HIT}", f"' onmouseover='{HIT}",
    f"` onmouseover={HIT}", f"</title><script>{HIT}</script>", f"</style><script>{HIT}</script>",
    f"</code></pre><script>{HIT}</script>", f"</bdi></td></table><script>{HIT}</script>", f"--><script>{HIT}</script>",
    f"]]><script>{HIT}</script>", f"\\\"-{HIT}-\\\"", f"';{HIT}//", f"\u2028{HIT}//", "{{ 7 * 7 }}",
    "{% include 'x' %}", "{{ ''.__class__.__mro__ }}", f"${{{HIT}}}", f"javascript:{HIT}", "&lt;b&gt;", "&#60;b&#62;",
    "\u202egnp.exe", "\u2066x", "\udc80\udcff", "\x1b[31mred", "a\x00b",
)  # fmt: skip
PAYLOADS = (*ELEMENTS, *OUT_OF_THEIR_PLACE)
