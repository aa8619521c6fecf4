// Keeps the page up to date: the agent sends each section that changed, as HTML it made itself.
"use strict";
const live = document.getElementById("live");
const events = new EventSource("/api/v1/events");
events.addEventListener("open", () => { live.textContent = "live"; });
events.addEventListener("error", () => { live.textContent = "the agent does not answer; trying again"; });
events.addEventListener("section", (event) => {
  const { id, html } = JSON.parse(event.data);
  const body = document.querySelector(`#${CSS.escape(id)} > .body`);
  if (!body) return;
  // What the reader opened stays open.
  const open = body.querySelector("details")?.open ?? false;
  body.innerHTML = html;
  const details = body.querySelector("details");
  if (details) details.open = open;
});
