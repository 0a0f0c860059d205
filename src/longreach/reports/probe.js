"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const tokens = [...document.querySelectorAll(".token")];
const said = document.getElementById("said");

function shade(value, most) {
  const share = Math.round(Math.min(1, Math.abs(value) / most) * 70);
  return `color-mix(in srgb, var(${value > 0 ? "--accent" : "--bad"}) ${share}%, transparent)`;
}

function choose(at) {
  const falls = data.importances[at];
  const known = falls.filter((value) => value !== null);
  const most = Math.max(1e-6, ...known.map(Math.abs));
  tokens.forEach((token, other) => {
    const value = falls[at - other];
    const near = other < at && at - other < falls.length && value !== null && value !== undefined;
    token.style.background = near && Math.abs(value) > most / 200 ? shade(value, most) : "";
    token.title = near ? `${value.toFixed(3)} nats at distance ${at - other}` : "";
    token.classList.toggle("far", other > at || at - other > data.longest);
    token.setAttribute("aria-pressed", String(other === at));
    token.tabIndex = other === at ? 0 : -1;
  });
  tell(at, falls, most);
  draw("curve", data.losses[at]);
}

function word(at) {
  return tokens[at].textContent.trim() || (tokens[at].textContent.includes("\n") ? "line end" : "space");
}

function tell(at, falls, most) {
  const losses = data.losses[at].filter((value) => value !== null);
  if (losses.length < 2) {
    said.textContent = "Too little stands before this token.";
    return;
  }
  const best = falls.map((value, distance) => [value, distance]).filter(([value]) => value !== null && value > 0)
    .sort((one, other) => other[0] - one[0]).slice(0, 3)
    .map(([value, distance]) => `“${word(at - distance)}” (${value.toFixed(2)}, ${distance} back)`);
  const whole = losses[losses.length - 1];
  said.textContent = `“${word(at)}”: loss ${losses[0].toFixed(2)} with the shortest context, `
    + `${whole.toFixed(2)} with the longest.` + (best.length && most > 1e-5 ? ` It hung most on ${best.join(", ")}.` : "");
}

function draw(id, losses) {
  const curve = document.getElementById(id);
  const points = losses.map((value, length) => [length, value]).filter(([, value]) => value !== null);
  if (points.length < 2) {
    curve.replaceChildren();
    return;
  }
  const high = Math.max(...points.map(([, value]) => value)) || 1;
  const [first, last] = [points[0][0], points[points.length - 1][0]];
  const x = (length) => 50 + (length - first) / Math.max(1, last - first) * 690;
  const y = (value) => 190 - value / high * 170;
  const path = points.map(([length, value], index) => `${index ? "L" : "M"}${x(length).toFixed(1)} ${y(value).toFixed(1)}`).join("");
  curve.innerHTML = `<path d="${path}"></path><text x="4" y="24">${high.toFixed(1)}</text><text x="4" y="194">0</text>`
    + `<text x="50" y="214">${first}</text><text x="740" y="214" text-anchor="end">${last} tokens</text>`;
}

document.getElementById("text").addEventListener("click", (event) => {
  const token = event.target.closest(".token");
  if (token) choose(Number(token.dataset.at));
});
document.getElementById("text").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1, Enter: 0, " ": 0 }[event.key];
  if (step !== undefined) {
    const from = Number(event.target.closest(".token").dataset.at);
    const at = Math.min(tokens.length - 1, Math.max(0, from + step));
    event.preventDefault();
    tokens[at].focus();
    choose(at);
  }
});
draw("means", data.means);
