"use strict";
(function () {
  // Without a script the page is whole; with it, layers can be looked up and the contents fold on phones.
  var box = document.getElementById("filter");
  var found = document.getElementById("found");
  var contents = document.getElementById("contents");
  var articles = Array.prototype.slice.call(document.querySelectorAll("article[data-layer]"));
  var parts = document.querySelectorAll("[data-layer]");
  box.parentElement.hidden = false;
  if (window.matchMedia("(max-width: 60rem)").matches) { contents.open = false; }
  contents.addEventListener("click", function (event) {
    if (event.target.tagName === "A" && window.matchMedia("(max-width: 60rem)").matches) { contents.open = false; }
  });
  box.addEventListener("input", function () {
    var wanted = box.value.trim().toLowerCase();
    var shown = new Set();
    articles.forEach(function (article) {
      if (article.dataset.find.toLowerCase().indexOf(wanted) >= 0) { shown.add(article.dataset.layer); }
    });
    parts.forEach(function (part) { part.hidden = !shown.has(part.dataset.layer); });
    found.textContent = wanted ? shown.size + " of " + articles.length + " layers" : "";
  });

  // A head becomes a button: up, down. What is not known stays at the end.
  document.querySelectorAll("table.layers th[data-sort]").forEach(function (head) {
    var button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.textContent = "";
    head.appendChild(button);
    button.addEventListener("click", function () { sort(head); });
  });
  function sort(head) {
    var body = head.closest("table").tBodies[0];
    var down = head.getAttribute("aria-sort") === "ascending";
    var at = head.cellIndex, isText = head.dataset.sort === "text";
    var rows = Array.prototype.slice.call(body.rows);
    rows.sort(function (a, b) { return Number(a.dataset.layer) - Number(b.dataset.layer); });
    rows.sort(function (a, b) {
      var x = a.cells[at], y = b.cells[at];
      if (isText) { return x.textContent.localeCompare(y.textContent, "en", { numeric: true }) * (down ? -1 : 1); }
      if (x.dataset.v === "" || y.dataset.v === "") { return (x.dataset.v === "") - (y.dataset.v === ""); }
      var left = number(x.dataset.v), right = number(y.dataset.v);
      return left === right ? 0 : (left < right) === down ? 1 : -1;
    });
    rows.forEach(function (row) { body.appendChild(row); });
    head.parentElement.querySelectorAll("[aria-sort]").forEach(function (other) { other.removeAttribute("aria-sort"); });
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    document.getElementById("sorted").textContent = "Sorted by " + head.textContent + (down ? ", largest first." : ", smallest first.");
  }
  function number(text) { return text === "inf" ? Infinity : Number(text); }

  // The picture in the page becomes a file, so that a page that lies alone can hand it out.
  var inks = JSON.parse(document.body.dataset.inks);
  document.querySelectorAll("a.svg").forEach(function (link) {
    link.addEventListener("click", function () {
      var copy = link.closest("figure").querySelector("svg").cloneNode(true);
      copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
      copy.removeAttribute("class");
      copy.querySelectorAll("[class]").forEach(function (part) {
        var isLine = part.classList[0] === "l", colour = inks[part.classList[isLine ? 1 : 0]];
        part.setAttribute("fill", isLine ? "none" : colour);
        if (isLine) { part.setAttribute("stroke", colour); }
        part.removeAttribute("class");
      });
      copy.querySelectorAll("a").forEach(function (a) { a.removeAttribute("href"); });
      var file = new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" });
      link.href = URL.createObjectURL(file);
    });
  });
}());
