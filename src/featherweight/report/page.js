(function () {
  "use strict";
  document.documentElement.classList.remove("no-js");
  var figures = JSON.parse(document.getElementById("figures").textContent);
  function css(name) { return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim(); }
  function paint(value, key) {
    if (Array.isArray(value)) return value.map(function (v) { return paint(v, key); });
    if (value && typeof value === "object") { var o = {}; Object.keys(value).forEach(function (k) { o[k] = paint(value[k], k); }); return o; }
    return /color/.test(key) && typeof value === "string" && value[0] === "@" ? css(value.slice(1)) : value;
  }
  function draw() {
    figures.forEach(function (f) {
      var node = document.getElementById("plot-" + f.id), layout = paint(f.layout, ""), tight = layout.tight;
      delete layout.tight;
      var axis = { gridcolor: css("line"), zerolinecolor: css("line"), linecolor: css("soft"), automargin: true };
      Object.assign(layout, { paper_bgcolor: css("bg"), plot_bgcolor: css("bg"), font: { color: css("fg"), size: 13 }, margin: tight ? { l: 8, r: 8, t: 34, b: 60 } : { l: 64, r: 24, t: 34, b: 110 },
        hovermode: "closest", hoverlabel: { align: "left", bgcolor: css("card"), bordercolor: css("line"), font: { color: css("fg") } }, legend: { orientation: "h", x: 0, xanchor: "left", yref: "container", y: 0, yanchor: "bottom" } });
      layout.xaxis = Object.assign({}, axis, layout.xaxis); layout.yaxis = Object.assign({}, axis, layout.yaxis);
      [layout.xaxis, layout.yaxis].forEach(function (a) { a.title.standoff = 14; });
      Plotly.react(node, paint(f.data, ""), layout, { responsive: true, displaylogo: false, plotlyServerURL: "", modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] });
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
  document.querySelectorAll("table.filtered").forEach(function (table) {
    var bar = document.createElement("p"), find = document.createElement("input"), more = document.createElement("button"), count = document.createElement("span");
    bar.className = "bar"; find.type = "search"; find.placeholder = "only rows with this text"; find.setAttribute("aria-label", "Only rows with this text");
    more.type = "button"; count.className = "soft"; count.setAttribute("role", "status");
    function columns() { var all = table.classList.toggle("short") === false; more.textContent = all ? "Fewer columns" : "All columns"; more.setAttribute("aria-expanded", String(all)); }
    function pick() {
      var words = find.value.toLowerCase().split(/\s+/).filter(Boolean), rows = Array.from(table.tBodies[0].rows), n = 0;
      rows.forEach(function (r) { var text = r.textContent.toLowerCase(), fits = words.every(function (w) { return text.indexOf(w) >= 0; }); r.hidden = !fits; n += fits; });
      count.textContent = words.length ? n + " of " + rows.length + " rows" : "";
    }
    find.addEventListener("input", pick); more.addEventListener("click", columns); columns();
    bar.append(find, more, count); table.closest(".wide").before(bar);
  });
})();
