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
    if (main.contains(document.activeElement) && document.activeElement.matches("input, button")) return true;
    const selection = document.getSelection();
    return selection !== null && !selection.isCollapsed && main.contains(selection.anchorNode);
  }

  function keepFresh(main) {
    let reading = false;
    let again = false;
    async function read() {
      if (reading || document.hidden || isBusy(main)) {
        again = true;
        return;
      }
      reading = true;
      again = false;
      try {
        const response = await fetch(location.href, { headers: { accept: "text/html" } });
        if (response.ok) {
          const page = new DOMParser().parseFromString(await response.text(), "text/html");
          const fresh = page.getElementById("main");
          if (fresh !== null && fresh.innerHTML !== main.innerHTML) {
            const focused = document.activeElement instanceof HTMLAnchorElement && document.activeElement.getAttribute("href");
            main.replaceChildren(...fresh.childNodes);
            adopt(main);
            if (focused) main.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
          }
          if (fresh !== null && !("live" in fresh.dataset)) events.close();
        }
      } catch {
        // The server is away; the next event comes when it is back.
      } finally {
        reading = false;
      }
    }
    const events = new EventSource("/events");
    let opened = false;
    events.addEventListener("changed", read);
    events.addEventListener("open", () => {
      // After an interruption changes may have been missed.
      if (opened) read();
      opened = true;
    });
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && again) read();
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
    const events = new EventSource(log.dataset.follow);
    let length = log.textContent.length;
    const atEnd = () => window.innerHeight + window.scrollY >= document.documentElement.scrollHeight - 60;
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
      if (follows) window.scrollTo(0, document.documentElement.scrollHeight);
    });
    events.addEventListener("end", (event) => {
      events.close();
      const message = JSON.parse(event.data).message;
      say(message.charAt(0).toUpperCase() + message.slice(1) + ".");
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
