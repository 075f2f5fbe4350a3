
"use strict";
(() => {
  const list = document.getElementById("cards");
  if (!list) return;
  const PAGE = 48;
  const cards = [...list.children];
  const words = new Map(cards.map((card) => [card, card.textContent.toLowerCase()]));
  const field = (name) => document.getElementById("by-" + name);
  const chosen = (name) => field(name).value;
  const number = (card, key, missing) => card.dataset[key] === "" ? missing : Number(card.dataset[key]);
  const isWrong = (card) => card.dataset.verdict === "wrong" || card.dataset.verdict === "unreadable";
  const surest = (a, b) => number(b, "sure", -1) - number(a, "sure", -1);
  const orders = {
    order: () => 0,
    wrong: (a, b) => isWrong(b) - isWrong(a) || surest(a, b),
    surest,
    unsure: (a, b) => number(a, "sure", 2) - number(b, "sure", 2),
    overlap: (a, b) => number(b, "iou", -1) - number(a, "iou", -1),
    miss: (a, b) => number(a, "iou", 2) - number(b, "iou", 2),
  };
  let room = PAGE;
  let fitting = cards;
  const fits = (card) => {
    if (!["task", "dataset", "verdict"].every((key) => !chosen(key) || card.dataset[key] === chosen(key))) return false;
    if (chosen("label") && !card.dataset.labels.split(";").includes(chosen("label"))) return false;
    if (chosen("confidence")) {
      const [low, high] = chosen("confidence").split(" ").map(Number);
      const sure = number(card, "sure", -1);
      if (sure < low || (high < 1 ? sure >= high : sure > 1)) return false;
    }
    const wanted = chosen("words").trim().toLowerCase();
    return wanted === "" || words.get(card).includes(wanted);
  };
  const show = () => {
    const sorted = [...cards].sort((a, b) => orders[chosen("order")](a, b) || a.dataset.order - b.dataset.order);
    fitting = sorted.filter(fits);
    const seen = new Set(fitting.slice(0, room));
    for (const card of cards) card.hidden = !seen.has(card);
    list.append(...sorted);
    const left = fitting.length - seen.size;
    document.getElementById("shown").textContent = seen.size + " of " + fitting.length + " that fit";
    const more = document.getElementById("more");
    more.hidden = left === 0;
    more.textContent = "Show " + Math.min(PAGE, left) + " more";
  };
  const goTo = (card) => {
    const place = fitting.indexOf(card);
    if (place >= room) { room = Math.ceil((place + 1) / PAGE) * PAGE; show(); }
    card.focus();
    card.scrollIntoView({ block: "nearest" });
    history.replaceState(null, "", "#" + card.id);
  };
  const move = (step) => {
    const now = document.activeElement.closest(".card") || document.querySelector(".card:target");
    const place = fitting.indexOf(now);
    const next = fitting[Math.min(fitting.length - 1, Math.max(0, place + step))];
    if (next) goTo(next);
  };
  const open = () => {
    const card = location.hash.startsWith("#case-") && document.getElementById(location.hash.slice(1));
    if (!card) return;
    if (!fitting.includes(card)) {
      for (const name of ["task", "dataset", "verdict", "label", "confidence", "words"]) field(name).value = "";
      show();
    }
    goTo(card);
  };
  for (const name of ["task", "dataset", "verdict", "label", "confidence", "order", "words"]) {
    field(name).addEventListener("input", () => { room = PAGE; show(); });
  }
  document.getElementById("more").addEventListener("click", () => { room += PAGE; show(); });
  document.addEventListener("keydown", (event) => {
    if (event.target.closest?.("input, select") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "j") move(1);
    if (event.key === "k") move(-1);
    if (event.key === "/") { event.preventDefault(); field("words").focus(); }
  });
  window.addEventListener("hashchange", open);
  document.getElementById("filters").hidden = false;
  show();
  open();
})();
