// What pages do by themselves: durations go on, live pages are read again when the farm changes, logs are followed.
// Without this script every page works; it is then as old as its last load.
"use strict";

(() => {
  const pad = (number) => String(number).padStart(2, "0");

  function lasting(seconds) {
    if (seconds < 60) return `${seconds} s`;
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${pad(seconds % 60)} s`;
    if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${pad(Math.floor((seconds % 3600) / 60))} min`;
    return `${Math.floor(seconds / 86400)} d ${pad(Math.floor((seconds % 86400) / 3600))} h`;
  }

  // The browser's clock may be wrong: count from what the server said when the page was made.
  function adopt(root) {
    const now = performance.now();
    for (const element of root.querySelectorAll("[data-since]")) {
      element.loadedAt = now;
      element.age = age(element.textContent);
    }
  }

  function age(text) {
    const units = { s: 1, min: 60, h: 3600, d: 86400 };
    let seconds = 0;
    for (const [, number, unit] of text.matchAll(/(\d+) (s|min|h|d)/g)) seconds += Number(number) * units[unit];
    return seconds;
  }

  function tick() {
    const now = performance.now();
    for (const element of document.querySelectorAll("[data-since]")) {
      if (element.loadedAt === undefined) continue;
      const text = lasting(element.age + Math.floor((now - element.loadedAt) / 1000));
      if (text !== element.textContent) element.textContent = text;
    }
  }

  function isBusy(main) {
    if (main.contains(document.activeElement) && document.activeElement.matches("input, select, textarea, button")) return true;
    const selection = document.getSelection();
    return selection !== null && !selection.isCollapsed && main.contains(selection.anchorNode);
  }

  // Keeps a stream open while the page is seen: a browser has few connections to a server, and tabs in the background need none.
  // `address` is asked at each opening; `listen` is given the new stream. Gives a function that ends it.
  function whileSeen(address, listen) {
    let events = null;
    let ended = false;
    function follow() {
      if (document.hidden || ended) {
        events?.close();
        events = null;
      } else if (events === null) {
        const opened = new EventSource(address());
        events = opened;
        opened.addEventListener("error", () => {
          // The browser tries again by itself, but not after an answer like 503.
          if (opened.readyState !== EventSource.CLOSED || events !== opened) return;
          events = null;
          setTimeout(follow, 5000);
        });
        listen(opened);
      }
    }
    document.addEventListener("visibilitychange", follow);
    follow();
    return () => {
      ended = true;
      follow();
    };
  }

  function keepFresh(main) {
    let reading = false;
    let again = false;
    let opened = false;
    async function read() {
      if (reading || document.hidden || isBusy(main)) {
        again = true;
        return;
      }
      reading = true;
      again = false;
      try {
        const response = await fetch(location.href, { headers: { accept: "text/html" } });
        if (response.ok) adoptPage(new DOMParser().parseFromString(await response.text(), "text/html"));
        else again = true;
      } catch {
        // The server is away.
        again = true;
      } finally {
        reading = false;
      }
    }
    function adoptPage(page) {
      const fresh = page.getElementById("main");
      if (fresh === null) return;
      const isLive = "live" in fresh.dataset;
      const active = document.activeElement;
      const focused = active instanceof HTMLAnchorElement && main.contains(active) ? active.getAttribute("href") : null;
      main.replaceChildren(...fresh.childNodes);
      adopt(main);
      if (focused !== null) main.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
      if (!isLive) end();
    }
    const end = whileSeen(() => "/events", (events) => {
      events.addEventListener("changed", read);
      events.addEventListener("open", () => {
        // While there was no stream, changes were missed.
        if (opened) read();
        opened = true;
      });
    });
    setInterval(() => {
      if (again) read();
    }, 3000);
  }

  // Characters of a followed log that stay on the page.
  const longest = 4_000_000;

  function followLog(log) {
    const status = document.querySelector(".follow");
    const say = (text) => {
      if (status !== null && status.textContent !== text) status.textContent = text;
    };
    const address = new URL(log.dataset.follow, location.href);
    let length = log.textContent.length;
    const atEnd = () => window.innerHeight + window.scrollY >= document.documentElement.scrollHeight - 60;
    const end = whileSeen(() => address, (events) => {
      events.addEventListener("open", () => say("The log is growing."));
      events.addEventListener("error", () => say("The connection was lost; trying again."));
      events.addEventListener("message", (event) => {
        const follows = atEnd();
        const piece = document.createElement("span");
        // Escaped by the server, as the page was.
        piece.innerHTML = JSON.parse(event.data).html;
        log.append(piece);
        length += piece.textContent.length;
        while (length > longest && log.firstChild !== piece) {
          length -= log.firstChild.textContent.length;
          log.firstChild.remove();
        }
        address.searchParams.set("offset", event.lastEventId);
        if (follows) window.scrollTo(0, document.documentElement.scrollHeight);
      });
      events.addEventListener("end", (event) => {
        end();
        const message = JSON.parse(event.data).message;
        say(message.charAt(0).toUpperCase() + message.slice(1) + ".");
      });
    });
    window.scrollTo(0, document.documentElement.scrollHeight);
  }

  const main = document.getElementById("main");
  adopt(main);
  setInterval(tick, 1000);
  if ("live" in main.dataset) keepFresh(main);
  const log = document.querySelector("[data-follow]");
  if (log !== null) followLog(log);
})();
