"use strict";
// Tooltips for whatever carries a title, and arrow keys inside groups. Without this script the browser's own titles remain.
(() => {
  const box = document.getElementById("tip");
  let shown = null;

  const textOf = (el) => {
    if (el.dataset.tip === undefined) {
      const title = el.querySelector(":scope > title");
      el.dataset.tip = title ? title.textContent : el.getAttribute("title") || "";
      if (title) title.remove();
      el.removeAttribute("title");
      if (el.tagName.toLowerCase() === "g") el.setAttribute("role", "img");
      if (!el.matches(".cell")) el.setAttribute("aria-label", el.dataset.tip);
    }
    return el.dataset.tip;
  };

  const place = (x, y) => {
    const gap = 14, edge = 8;
    const left = Math.min(Math.max(edge, x + gap), innerWidth - box.offsetWidth - edge);
    const above = y - box.offsetHeight - gap;
    box.style.left = `${Math.max(edge, left)}px`;
    box.style.top = `${above >= edge ? above : y + gap}px`;
  };

  const show = (el, x, y) => {
    shown = el;
    box.textContent = textOf(el);
    box.hidden = !box.textContent;
    place(x, y);
  };

  const hide = () => { shown = null; box.hidden = true; };

  document.addEventListener("pointerover", (event) => {
    const el = event.target.closest(".tip");
    if (el) show(el, event.clientX, event.clientY); else if (shown && shown !== document.activeElement) hide();
  });
  document.addEventListener("pointermove", (event) => {
    if (shown && shown.contains(event.target)) place(event.clientX, event.clientY);
  });
  document.addEventListener("focusin", (event) => {
    const el = event.target.closest(".tip");
    if (!el) return hide();
    const at = el.getBoundingClientRect();
    show(el, at.left, at.top);
  });
  document.addEventListener("focusout", hide);
  document.addEventListener("scroll", () => {
    if (!shown) return;
    if (shown !== document.activeElement) return hide();
    const at = shown.getBoundingClientRect();  // moving by keyboard scrolls: the text goes along
    place(at.left, at.top);
  }, { passive: true });

  const middle = (el) => {
    const at = el.getBoundingClientRect();
    return { x: (at.left + at.right) / 2, y: (at.top + at.bottom) / 2 };
  };

  // The nearest neighbour in a direction: what lies along it counts once, what lies across it counts four times.
  const neighbour = (from, all, dx, dy) => {
    const here = middle(from);
    let best = null, least = Infinity;
    for (const el of all) {
      const there = middle(el), x = there.x - here.x, y = there.y - here.y;
      const along = x * dx + y * dy, across = Math.abs(x * dy) + Math.abs(y * dx);
      if (el === from || along < 1 || (dy === 0 && across > 14)) continue;
      const far = along + 4 * across * (dy === 0 ? 1 : 0.05);
      if (far < least) { least = far; best = el; }
    }
    return best;
  };

  const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return hide();
    const group = event.target.closest("[data-roving]");
    const way = ways[event.key];
    if (!group || !(way || event.key === "Home" || event.key === "End")) return undefined;
    const all = [...group.querySelectorAll(".tip")];
    const from = event.target.closest(".tip");
    let next = from && way ? neighbour(from, all, way[0], way[1]) : all[0];
    if (event.key === "End") next = all[all.length - 1];
    event.preventDefault();
    if (!next) return undefined;
    textOf(next);
    next.setAttribute("tabindex", "-1");
    next.focus();
    return undefined;
  });
})();
