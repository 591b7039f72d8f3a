// What the page does without asking the server: the plot of the guidance interval, the link that follows the controls,
// the trajectory's frames.
window.hastezoo = {
  // An SVG of the guidance scale over t: data on the left, noise on the right, as far as `low <= t <= high` the scale.
  interval(low, high, cfg) {
    const [width, height, left, right, top, bottom] = [320, 84, 30, 8, 10, 24];
    const x = (t) => left + t * (width - left - right);
    const highest = Math.max(2, cfg, 1);
    const y = (scale) => height - bottom - (scale / highest) * (height - bottom - top);
    const guided = Number(cfg) !== 1;
    const valid = Number(low) <= Number(high);
    const said = !valid ? "The interval is empty: its low end is above its high end"
      : guided ? `Guidance with scale ${cfg} where ${low} <= t <= ${high}, none elsewhere`
      : "No guidance: the scale is 1";
    const ticks = [0, 0.25, 0.5, 0.75, 1].map((t) =>
      `<text x="${x(t)}" y="${height - 8}" text-anchor="${t === 0 ? "start" : t === 1 ? "end" : "middle"}">` +
      `${t === 0 ? "t = 0 data" : t === 1 ? "1 noise" : t}</text>`).join("");
    const line = valid
      ? `M${x(0)} ${y(1)}H${x(low)}V${y(cfg)}H${x(high)}V${y(1)}H${x(1)}` : `M${x(0)} ${y(1)}H${x(1)}`;
    const area = valid
      ? `<rect x="${x(low)}" width="${Math.max(0, x(high) - x(low))}" y="${Math.min(y(cfg), y(1))}" ` +
        `height="${Math.abs(y(cfg) - y(1))}"/>` : "";
    return `<svg class="hz-interval${valid ? "" : " hz-invalid"}" viewBox="0 0 ${width} ${height}" role="img" ` +
      `aria-label="${said}"><title>${said}</title>` +
      `<line class="hz-axis" x1="${x(0)}" x2="${x(1)}" y1="${y(0)}" y2="${y(0)}"/>${area}<path d="${line}"/>` +
      `<text x="${left - 4}" y="${y(1) + 4}" text-anchor="end">1</text>` +
      (guided ? `<text x="${left - 4}" y="${y(cfg) + 4}" text-anchor="end">${cfg}</text>` : "") + `${ticks}</svg>`;
  },

  // The address says what the page shows, so that it can be sent to somebody.
  // Not before the address that the page was opened with has been read.
  opened: location.search,
  ready: false,
  remember(tab, names, values) {
    if (!this.ready) return;
    const query = new URLSearchParams();
    const theme = new URLSearchParams(location.search).get("__theme");
    if (theme) query.set("__theme", theme);
    query.set("tab", tab);
    names.forEach((name, index) => {
      const value = values[index];
      if (value === null || value === undefined || value === "") return;
      if (Array.isArray(value)) value.forEach((one) => query.append(name, one));
      else query.set(name, value);
    });
    history.replaceState(null, "", `${location.pathname}?${query}`);
  },

  // Show of every film the frame that is nearest to the slider's time, of the kind that is chosen.
  frame(name) {
    const films = document.getElementById(name);
    const slider = films.querySelector("input[type=range]");
    const time = Number(films.dataset.times.split(" ")[slider.value]);
    const kind = films.querySelector("input[type=radio]:checked").value;
    const away = (one) => Math.abs(Number(one.dataset.t) - time);
    slider.setAttribute("aria-valuetext", `t = ${this.time(time)}`);
    films.querySelectorAll(".hz-film").forEach((film) => {
      const frames = [...film.querySelectorAll("img")];
      const shown = frames.filter((one) => one.dataset.kind === kind).reduce((a, b) => (away(b) < away(a) ? b : a));
      frames.forEach((one) => one.toggleAttribute("hidden", one !== shown));
      film.parentElement.querySelector(".hz-time").textContent = `t = ${this.time(Number(shown.dataset.t))}`;
    });
  },

  time(t) {
    return String(Math.round(t * 1000) / 1000);
  },

  // Move the slider from noise to the images, or stop where it is.
  play(name) {
    const films = document.getElementById(name);
    const [slider, button] = [films.querySelector("input[type=range]"), films.querySelector("button")];
    const stop = () => { clearInterval(films.timer); films.timer = null; button.textContent = "Play"; };
    if (films.timer) return stop();
    if (slider.value === slider.max) slider.value = 0;
    button.textContent = "Pause";
    const every = Math.max(60, Math.min(200, 4000 / slider.max));
    this.frame(name);
    films.timer = setInterval(() => {
      slider.value = Number(slider.value) + 1;
      if (films.isConnected) this.frame(name);
      if (!films.isConnected || slider.value === slider.max) stop();
    }, every);
  },
};

// Ctrl+Enter draws, wherever the cursor is; taken before a list under the cursor takes it for a choice.
document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  const go = [...document.querySelectorAll("button[id$='-go']")].find((one) => one.offsetParent && !one.disabled);
  if (!go) return;
  event.preventDefault();
  event.stopPropagation();
  go.click();
}, true);
