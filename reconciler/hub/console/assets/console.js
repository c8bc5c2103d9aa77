// What htmx does not do: the banner while the hub is away, the log, keys, and small buttons.
"use strict";
(() => {
  const banner = document.getElementById("banner");
  const leave = () => { location.href = "/login?ended=1&next=" + encodeURIComponent(location.pathname + location.search); };

  // --- is the hub there? ---
  const silence = 35000; // ms; the hub sends a beat every 10 s
  let asking = null, live = null, heard = Date.now(), broken = 0;
  const show = (what) => {
    for (const s of banner.querySelectorAll("[data-banner]")) s.hidden = s.dataset.banner !== what;
    banner.hidden = what === "";
    document.body.classList.toggle("offline", what === "away");
  };
  const ask = async () => {
    asking = null;
    try {
      const r = await fetch("/ping", { cache: "no-store", redirect: "error", signal: AbortSignal.timeout(5000) });
      if (r.status === 401) { leave(); return; }
      if (r.ok) {
        if (!live) show("");
        else if (live.readyState === EventSource.CLOSED || Date.now() - heard > silence) again();
        return;
      }
    } catch { /* it is away */ }
    show("away");
    later(2000);
  };
  const later = (ms) => { asking ??= setTimeout(ask, ms); };
  const on = (name, f) => document.body.addEventListener(name, f);

  // A page's stream. Only what comes over it proves that the page is live. A browser gives up a
  // stream on any answer but 200, and the extension then waits longer each time; here the
  // hub is asked, and the stream opened anew as soon as it is there.
  htmx.createEventSource = (url) => {
    const s = live = new EventSource(url);
    const take = (name, f) => s.addEventListener(name, (e) => { if (s === live) f(e); });
    const well = (what) => { heard = Date.now(); broken = 0; show(what); };
    Object.defineProperty(s, "onerror", { set() {} });
    take("error", () => {
      if (++broken > 2) show("away");
      later(broken > 1 ? 2000 : 300);
    });
    take("beat", () => well(""));
    take("busy", () => well("busy"));
    take("signedout", () => { s.close(); leave(); });
    take("reload", () => { s.close(); location.reload(); });
    return s;
  };
  const again = () => {
    const page = document.querySelector("[sse-connect]");
    if (!page) return;
    live.close();
    heard = Date.now();
    for (const e of [page, ...page.querySelectorAll("[sse-swap]")]) htmx.trigger(e, "htmx:afterProcessNode"); // where the extension begins
  };
  // the page to sign in is shown to who is not: the others look whether they still are
  const tabs = new BroadcastChannel("selvedge");
  tabs.onmessage = () => { if (!document.querySelector(".login")) later(0); };
  if (document.querySelector(".login")) tabs.postMessage("signed out");
  on("htmx:sendError", () => later(0));
  addEventListener("offline", () => later(0));
  addEventListener("online", () => later(0));
  setInterval(() => { if (live && Date.now() - heard > silence) later(0); }, 5000);

  // --- notices, copying, confirmations ---
  on("click", (e) => {
    const t = e.target.closest("[data-dismiss],[data-copy],[data-log-open]");
    if (!t) return;
    if (t.dataset.copy !== undefined) {
      navigator.clipboard.writeText(t.dataset.copy).then(() => { t.textContent = "Copied"; setTimeout(() => { t.textContent = "Copy"; }, 1500); });
    } else if (t.dataset.logOpen !== undefined) {
      e.preventDefault();
      openLog(t.dataset.logOpen);
    } else {
      t.parentElement.remove();
    }
  });
  on("htmx:afterRequest", (e) => {
    if (e.target.matches?.("form[popover]")) e.target.hidePopover();
    for (const n of document.querySelectorAll("[data-notice]:not(.bad,[data-timed])")) {
      n.dataset.timed = "1";
      setTimeout(() => n.remove(), 8000);
    }
  });

  // problems of the hub say where they belong; any other error leaves the page as it is
  on("htmx:beforeSwap", (e) => {
    if (e.detail.xhr.getResponseHeader("HX-Retarget")) { e.detail.shouldSwap = true; e.detail.isError = false; }
  });
  on("htmx:responseError", () => {
    const fresh = document.getElementById("failed").content.firstElementChild.cloneNode(true), all = document.getElementById("notices");
    for (const n of all.children) if (n.textContent === fresh.textContent) n.remove(); // once is enough
    all.append(fresh);
  });

  // what is not filled in has no place in the address
  on("htmx:configRequest", (e) => {
    const q = e.detail.parameters;
    if (e.detail.verb === "get") for (const k of Object.keys(q)) if (q[k] === "") delete q[k];
  });

  // the search is sent while it is written; leaving the field is no news
  document.addEventListener("change", (e) => { if (e.target.matches("[type=search]")) e.stopImmediatePropagation(); }, true);

  // --- keys: / searches, j and k walk through rows ---
  addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey || e.target.closest("input,select,textarea,[popover]")) return;
    if (e.key === "/") {
      const s = document.querySelector("[data-search]");
      if (s) { e.preventDefault(); s.focus(); s.select(); }
    } else if (e.key === "j" || e.key === "k") {
      const all = [...document.querySelectorAll("[data-rows] tbody tr a:first-of-type")].filter((a) => a.closest("tr").querySelector("a") === a);
      if (!all.length) return;
      const at = all.indexOf(document.activeElement?.closest("tr")?.querySelector("a"));
      all[Math.max(0, Math.min(all.length - 1, at + (e.key === "j" ? 1 : -1)))].focus();
    }
  });

  // --- what people did to a part stays when it changes: a fold that is open, a choice, a question ---
  Object.assign(Idiomorph.defaults.callbacks, {
    beforeAttributeUpdated: (name) => name !== "open" && name !== "selected",
    beforeNodeMorphed: (old) => !old.matches?.("[popover]:popover-open"),
  });

  // --- the log ---
  const log = document.querySelector("[data-log]");
  let openLog = () => {};
  if (log) {
    const part = (name) => log.querySelector("[data-log-" + name + "]");
    const box = part("lines"), state = part("state"), start = part("start"), follow = part("follow"), previous = part("previous"), wrap = part("wrap");
    const most = 5000; // lines that are kept
    let stream = null, waiting = [], tail = "", drawn = 0, at = 0;
    const say = (text) => { state.textContent = text; };
    const toEnd = () => { box.scrollTop = box.scrollHeight; at = box.scrollTop; };
    const draw = () => {
      drawn = 0;
      const lines = (tail + waiting.join("")).split("\n");
      waiting = [];
      tail = lines.pop();
      if (tail.length > 65536) { lines.push(tail); tail = ""; }
      const fresh = document.createDocumentFragment();
      for (const l of lines.slice(-most)) {
        const d = document.createElement("div");
        d.textContent = l;
        fresh.append(d);
      }
      box.append(fresh);
      while (box.childElementCount > most) box.firstElementChild.remove();
      if (follow.checked) toEnd();
    };
    const stop = (text) => {
      stream?.close();
      stream = null;
      start.textContent = "Show";
      if (tail || waiting.length) { waiting.push("\n"); draw(); }
      say(text);
    };
    const begin = () => {
      const source = part("source"); // it comes with what the node reports
      if (!source) return;
      stream?.close();
      box.replaceChildren();
      waiting = []; tail = ""; at = 0;
      say("Connecting …");
      start.textContent = "Stop";
      const s = stream = new EventSource(log.dataset.log + "?" + source.value + (previous.checked ? "&previous=true" : ""));
      const take = (name, f) => s.addEventListener(name, (e) => { if (stream === s) f(e); });
      take("open", () => { if (s.readyState === 1) say(previous.checked ? "Reading …" : "Live"); });
      take("lines", (e) => { waiting.push(JSON.parse(e.data)); drawn ||= requestAnimationFrame(draw); });
      take("end", (e) => stop(JSON.parse(e.data)));
      take("signedout", leave);
      take("error", () => { stop("The log broke off: the hub cannot be reached. Show it again when it is back."); later(0); });
    };
    start.addEventListener("click", () => { if (stream) stop("Stopped"); else begin(); });
    log.addEventListener("change", (e) => { if (e.target === previous || e.target === part("source")) begin(); });
    wrap.addEventListener("change", () => { box.classList.toggle("wrap", wrap.checked); if (follow.checked) toEnd(); });
    follow.addEventListener("change", () => { if (follow.checked) toEnd(); });
    // whoever scrolls up, by whatever means, wants to read; at the end again, to follow
    box.addEventListener("scroll", () => {
      const below = box.scrollHeight - box.clientHeight - box.scrollTop;
      if (box.scrollTop < at && below > 1) follow.checked = false;
      else if (below < 40 && box.scrollHeight > box.clientHeight) follow.checked = true;
      at = box.scrollTop;
    }, { passive: true });
    openLog = (q) => {
      const source = part("source");
      if (!source) return;
      source.value = q;
      previous.checked = false;
      follow.checked = true;
      begin();
      log.scrollIntoView({ block: "start" });
      box.focus({ preventScroll: true });
    };
  }
})();
