"""The report's page: a Jinja template (autoescape on), its style and its few lines of script. No address is loaded from anywhere."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --bg: #ffffff; --fg: #1b1f24; --soft: #57606a; --line: #d0d7de; --card: #f6f8fa; --link: #0550ae;
  --good: #1a7f6b; --bad: #b54708; --front: #0550ae; --base: #24292f; --limit: #a40e26; --faint: #b6bec7;
  --line0: #0550ae; --line1: #b54708; --line2: #1a7f6b; --line3: #8250df; }
@media (prefers-color-scheme: dark) { :root { --bg: #0d1117; --fg: #e6edf3; --soft: #9da7b3; --line: #30363d; --card: #161b22; --link: #79c0ff;
  --good: #56d4bc; --bad: #ffa657; --front: #79c0ff; --base: #e6edf3; --limit: #ff8f9a; --faint: #57606a;
  --line0: #79c0ff; --line1: #ffa657; --line2: #56d4bc; --line3: #d2a8ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--fg); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main, header, footer { max-width: 1180px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 28px; } h1 { margin: 0 0 4px; font-size: 1.9rem; line-height: 1.2; overflow-wrap: anywhere; } h2 { margin: 44px 0 8px; font-size: 1.35rem; border-bottom: 1px solid var(--line); padding-bottom: 6px; }
h3 { margin: 22px 0 6px; font-size: 1.05rem; } p { max-width: 78ch; } .soft { color: var(--soft); }
a { color: var(--link); } .skip { position: absolute; left: -9999px; } .skip:focus { left: 12px; top: 12px; background: var(--bg); padding: 8px; z-index: 9; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 18px; padding: 0; margin: 12px 0 0; }
.found { background: var(--card); border: 1px solid var(--line); border-left: 5px solid var(--front); border-radius: 6px; padding: 14px 18px; margin: 20px 0 14px; }
.found p { margin: 4px 0; max-width: 100ch; } .found p:first-child { font-size: 1.12rem; font-weight: 600; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 12px; margin: 14px 0; padding: 0; }
.tile { border: 1px solid var(--line); border-radius: 6px; padding: 10px 14px; } .tile dt { color: var(--soft); font-size: .85rem; } .tile dd { margin: 0; font-size: 1.35rem; font-weight: 600; }
.tile dd small { display: block; font-size: .8rem; font-weight: 400; color: var(--soft); }
figure { margin: 14px 0; } figcaption { color: var(--soft); font-size: .9rem; } .plot { width: 100%; height: 460px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 0 20px; } .pair .plot { height: 380px; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .88rem; margin: 8px 0; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding: 4px 0; } th, td { padding: 5px 10px; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
td.n, th.n { text-align: right; white-space: nowrap; } td.what { min-width: 200px; overflow-wrap: anywhere; } thead th { border-bottom: 2px solid var(--line); white-space: nowrap; }
tr.best td { font-weight: 600; background: var(--card); } th button { all: unset; cursor: pointer; font-weight: 600; } th button:focus-visible { outline: 2px solid var(--link); }
th button::after { content: " \\2195"; color: var(--soft); } th[aria-sort="ascending"] button::after { content: " \\2191"; } th[aria-sort="descending"] button::after { content: " \\2193"; }
code, pre { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .88rem; } pre { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: 10px 14px; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
dl.facts { display: grid; grid-template-columns: max-content 1fr; gap: 2px 18px; margin: 6px 0; font-size: .92rem; } dl.facts dt { color: var(--soft); } dl.facts dd { margin: 0; overflow-wrap: anywhere; }
footer { padding-bottom: 40px; margin-top: 40px; color: var(--soft); font-size: .88rem; }
.no-js .plot { display: none; }
@media print { :root { --bg: #fff; --fg: #000; --soft: #444; --line: #bbb; --card: #f4f4f4; --link: #000; } nav, .skip { display: none; } main, header, footer { max-width: none; }
  figure, .tile, .found, tr { break-inside: avoid; } h2 { break-after: avoid; } .wide { overflow: visible; } table { font-size: .72rem; } th button::after { content: ""; } .pair { grid-template-columns: 1fr; } }
@media (max-width: 560px) { .pair { grid-template-columns: 1fr; } dl.facts { grid-template-columns: 1fr; } dl.facts dd { margin-bottom: 6px; } }
"""

SCRIPT = """
(function () {
  "use strict";
  document.documentElement.classList.remove("no-js");
  var figures = JSON.parse(document.getElementById("figures").textContent);
  function css(name) { return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim(); }
  function paint(value, key) {
    if (Array.isArray(value)) return value.map(function (v) { return paint(v, key); });
    if (value && typeof value === "object") { var o = {}; Object.keys(value).forEach(function (k) { o[k] = paint(value[k], k); }); return o; }
    return key === "color" && typeof value === "string" && value[0] === "@" ? css(value.slice(1)) : value;
  }
  function draw() {
    figures.forEach(function (f) {
      var node = document.getElementById("plot-" + f.id), layout = paint(f.layout, "");
      var axis = { gridcolor: css("line"), zerolinecolor: css("line"), linecolor: css("soft"), automargin: true };
      Object.assign(layout, { paper_bgcolor: css("bg"), plot_bgcolor: css("bg"), font: { color: css("fg"), size: 13 }, margin: { l: 64, r: 24, t: 34, b: 96 },
        hovermode: "closest", hoverlabel: { align: "left", bgcolor: css("card"), bordercolor: css("line"), font: { color: css("fg") } }, legend: { orientation: "h", x: 0, xanchor: "left", y: -0.2, yanchor: "top" } });
      layout.xaxis = Object.assign({}, axis, layout.xaxis); layout.yaxis = Object.assign({}, axis, layout.yaxis);
      Plotly.react(node, paint(f.data, ""), layout, { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] });
    });
  }
  draw();
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  window.matchMedia("print").addEventListener("change", draw);
  document.querySelectorAll("table.sortable th").forEach(function (th) {
    var button = document.createElement("button");
    button.type = "button"; button.textContent = th.textContent; th.textContent = ""; th.appendChild(button);
    button.addEventListener("click", function () {
      var up = th.getAttribute("aria-sort") !== "ascending", i = th.cellIndex, body = th.closest("table").tBodies[0];
      th.parentNode.querySelectorAll("th").forEach(function (o) { o.removeAttribute("aria-sort"); });
      th.setAttribute("aria-sort", up ? "ascending" : "descending");
      Array.from(body.rows).map(function (r, n) { return [r.cells[i].dataset.v, n, r]; }).sort(function (a, b) {
        var x = parseFloat(a[0]), y = parseFloat(b[0]);
        if (isNaN(x) !== isNaN(y)) return isNaN(x) ? 1 : -1;
        var d = isNaN(x) ? String(a[0]).localeCompare(String(b[0])) : x - y;
        return (up ? d : -d) || a[1] - b[1];
      }).forEach(function (r) { body.appendChild(r[2]); });
    });
  });
})();
"""

TEMPLATE = """{% macro tree(value) -%}
{% if value is mapping %}<dl class="facts">{% for k, v in value.items() %}<dt>{{ k | string | replace("_", " ") }}</dt><dd>{{ tree(v) }}</dd>{% endfor %}</dl>
{%- elif value is none %}none{% elif value is string or value is number %}{{ value }}{% elif value is iterable %}{% for v in value %}{% if not loop.first %}{{ "" if v is mapping else ", " }}{% endif %}{{ tree(v) }}{% else %}none{% endfor %}{% else %}{{ value }}{% endif %}
{%- endmacro %}
{% macro grid(t) -%}
<div class="wide" tabindex="0" role="region" aria-label="{{ t.caption }}"><table{% if t.sortable %} class="sortable"{% endif %}><caption>{{ t.caption }}</caption>
<thead><tr>{% for h in t.head %}<th scope="col"{% if h.number %} class="n"{% endif %}>{{ h.text }}</th>{% endfor %}</tr></thead>
<tbody>{% for row in t.rows %}<tr{% if row.best %} class="best"{% endif %}>{% for c in row.cells %}<td class="{{ 'n' if t.head[loop.index0].number else 'what' if t.head[loop.index0].wide else 't' }}" data-v="{{ c.sort }}">{{ c.text }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{%- endmacro %}
{% macro plot(f) -%}
<figure><h3>{{ f.title }}</h3><div class="plot" id="plot-{{ f.id }}" role="img" aria-label="{{ f.alt }}"></div><figcaption>{{ f.alt }}</figcaption></figure>
{%- endmacro %}
<!DOCTYPE html>
<html lang="en" class="no-js"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:">
<title>{{ task }}: Featherweight report</title><style>{{ style }}</style></head><body>
<a class="skip" href="#main">Skip to the results</a>
<header><h1>{{ task }}</h1><div class="soft">Featherweight report, {{ target }}, seed {{ seed }}</div>
<nav aria-label="Sections"><ul>{% for id, name in sections %}<li><a href="#{{ id }}">{{ name }}</a></li>{% endfor %}</ul></nav></header>
<main id="main">
<section class="found" aria-label="Summary">{% for line in summary %}<p>{{ line }}</p>{% endfor %}</section>
{% if tiles %}<dl class="tiles">{% for t in tiles %}<div class="tile"><dt>{{ t.name }}</dt><dd>{{ t.value }}<small>{{ t.note }}</small></dd></div>{% endfor %}</dl>{% endif %}
<h2 id="candidates">Front and baselines</h2>
<p>The front holds the candidates that meet every limit and that no other one beats everywhere. The baselines are always shown: the original, and what one gets without a search.</p>
{{ grid(front_table) }}
{% if figures %}<noscript><p>The plots need JavaScript. Every number in them is in the tables.</p></noscript>
{{ plot(figures[0]) }}
{% if crowded %}<p class="soft">{{ crowded }}</p>{% endif %}
<h2 id="tradeoffs">Trade-offs</h2><div class="pair">{% for f in figures[1:] if f.id.startswith("pair-") %}{{ plot(f) }}{% endfor %}</div>
<h2 id="history">History of the search</h2>
<p>Hypervolume is the share of the space between the original and zero that the feasible candidates dominate: it grows whenever the front moves.</p>
<div class="pair">{% for f in figures[1:] if not f.id.startswith("pair-") %}{{ plot(f) }}{% else %}<p>No trial met every limit, so there is no history to draw.</p>{% endfor %}</div>{% endif %}
{% if recipe %}<h2 id="recipe">How the {{ recipe.what }} candidate was made</h2><ol>{% for s in recipe.steps %}<li>{{ s }}</li>{% endfor %}</ol>{% endif %}
<h2 id="trials">Trials</h2>
{% if trial_note %}<p>{{ trial_note }}</p>{% endif %}{{ grid(trial_table) if trial_table.rows else "No trial has ended." }}
<h2 id="failures">Failures</h2>
{% if failures.rows %}<p>{{ failure_note }}</p>{{ grid(failures) }}{% else %}<p>No trial failed.</p>{% endif %}
<h2 id="how">What was measured, and how</h2>
<ul>
<li><b>On what:</b> every number is that of the exported file, loaded by its runtime in a process of its own; never that of the PyTorch model it came from.</li>
<li><b>Latency:</b> candidate and original are timed in turns (A B A B), warm, with pinned threads, one inference at a time. The speedup is the ratio of their times with its 95 % interval{{ clock }}. Only ratios are comparable between trials: the machine's speed drifts. The word "faster" is used only where the interval leaves out 1.0.</li>
<li><b>Size</b> is the sum of the artifact's files; <b>memory</b> is the peak resident memory of a whole process that loads and runs it, runtime included; <b>parameters</b> and <b>multiply-accumulates</b> are those of one sample.</li>
<li><b>Splits:</b> the transforms saw the training split, the search saw the validation split, and the test split was opened once, for the winners.</li>
<li><b>Certificate:</b> a paired 95 % interval, on the test split, of how far the metric falls below the original's. "Certified": all of the interval is within the limit. "Refuted": all of it is beyond. "Not certifiable": the test split is too small to tell.</li>
</ul>
{{ grid(measured) if measured.rows }}
{% for name, value in facts %}<h3>{{ name }}</h3>{{ tree(value) }}{% endfor %}
<h2 id="again">Do it again</h2>
<pre><code>{{ command }}</code></pre>
<p>Or, from the file that the study wrote, with the very same recipe:</p><pre><code>{{ rerun }}</code></pre>
<p>Next: <code>{{ next }}</code></p>
</main><footer>All data of this study are in study.db and front.json beside this file. This page loads nothing from the network.</footer>
{% if figures %}<script type="application/json" id="figures">{{ figures_json }}</script>
<script>{{ plotly }}</script>{% else %}<script type="application/json" id="figures">[]</script>{% endif %}
<script>{{ script }}</script></body></html>
"""
