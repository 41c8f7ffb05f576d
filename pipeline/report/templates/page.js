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
}());
