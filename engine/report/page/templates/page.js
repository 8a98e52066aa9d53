(() => {
  "use strict";
  const root = document.documentElement;
  const themes = ["auto", "light", "dark"];
  root.classList.add("js");

  // The theme is remembered where the browser allows it; pages from a disk may not have a store.
  const store = (value) => {
    try { return value === undefined ? localStorage.getItem("embank-theme") : localStorage.setItem("embank-theme", value); }
    catch { return null; }
  };
  const paint = (theme) => {
    if (theme === "auto") root.removeAttribute("data-theme"); else root.setAttribute("data-theme", theme);
    const name = document.getElementById("theme-name");
    if (!name) return;
    name.textContent = theme[0].toUpperCase() + theme.slice(1);
    document.getElementById("theme").setAttribute("aria-label", "Colours: " + (theme === "auto" ? "as the system has them" : theme));
  };
  let theme = themes.includes(store()) ? store() : "auto";
  paint(theme);

  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const text = (cell) => (Array.isArray(cell) ? cell[0] : cell);
  const part = (cell, index) => (Array.isArray(cell) && cell[index] !== undefined ? cell[index] : null);
  const say = (message) => { document.getElementById("said").textContent = message; };

  const compare = (column, up) => (a, b) => {
    const [x, y] = column.numeric ? [part(a, 1), part(b, 1)] : [text(a), text(b)];
    if (column.numeric && (x === null || y === null)) return (x === null) - (y === null);
    return (column.numeric ? x - y : x.localeCompare(y, "en", { numeric: true })) * (up ? 1 : -1);
  };
  // First press: numbers from the greatest, texts from A. Second: the other way. Third: as it was.
  const sort = (figure, table, button) => {
    const index = Number(button.dataset.column), column = table.columns[index];
    const head = button.closest("th"), body = figure.querySelector("tbody");
    const order = column.numeric ? ["descending", "ascending", "none"] : ["ascending", "descending", "none"];
    const next = order[(order.indexOf(head.getAttribute("aria-sort")) + 1) % 3];
    all("th[aria-sort]", figure).forEach((th) => th.removeAttribute("aria-sort"));
    if (next !== "none") head.setAttribute("aria-sort", next);
    const by = compare(column, next === "ascending");
    const rows = all("tr", body).sort((a, b) => {
      const [i, j] = [Number(a.dataset.row), Number(b.dataset.row)];
      return (next === "none" ? 0 : by(table.rows[i][index], table.rows[j][index])) || i - j;
    });
    body.append(...rows);
    say(next === "none" ? "In the order of the page" : `Sorted by ${column.title}, ${next}`);
  };

  const digits = (x) => (x === null ? "" : String(x));
  const safe = (s) => (/^[=+\-@\t\r]/.test(s) ? "'" + s : s);
  const quoted = (s) => (/[",\n\r]/.test(s) ? '"' + s.replaceAll('"', '""') + '"' : s);
  const csv = (table) => {
    const extras = table.columns.map((column, i) => [
      table.rows.some((row) => part(row[i], 2) !== null || part(row[i], 3) !== null),
      Boolean(column.numeric) && table.rows.some((row) => part(row[i], 5)),
    ]);
    const names = table.columns.flatMap((column, i) => {
      const name = column.group ? `${column.group}: ${column.title}` : column.title;
      return [name, ...(extras[i][0] ? [`${name} low`, `${name} high`] : []), ...(extras[i][1] ? [`${name} reason`] : [])];
    });
    const line = (row) => row.flatMap((cell, i) => {
      const number = part(cell, 1);
      const own = number !== null ? digits(number) : table.columns[i].numeric ? "" : safe(text(cell));
      return [own, ...(extras[i][0] ? [digits(part(cell, 2)), digits(part(cell, 3))] : []),
        ...(extras[i][1] ? [safe(part(cell, 5) ?? "")] : [])];
    });
    return [names.map(safe), ...table.rows.map(line)].map((row) => row.map(quoted).join(",") + "\n").join("");
  };

  const latex = (table, id, escapes) => {
    const tex = (s) => [...s.replaceAll("\n", " ")].map((c) => escapes[c] ?? c).join("");
    const cell = (c) => (part(c, 4) && text(c) ? `\\textbf{${tex(text(c))}}` : tex(text(c)));
    const spans = [];
    table.columns.forEach((column, i) => {
      const last = spans.at(-1), group = column.group ?? "";
      if (last && last.group === group) last.to = i; else spans.push({ group, from: i, to: i });
    });
    const groups = spans.flatMap((s) => (s.group ? [`\\multicolumn{${s.to - s.from + 1}}{c}{${tex(s.group)}}`] : Array(s.to - s.from + 1).fill("")));
    const rules = spans.filter((s) => s.group).map((s) => `\\cmidrule(lr){${s.from + 1}-${s.to + 1}}`);
    return ["% Made by embank report; needs \\usepackage{booktabs}.", "\\begin{table}", "\\centering", `\\caption{${tex(table.caption)}}`, `\\label{${id}}`,
      `\\begin{tabular}{${table.columns.map((c) => (c.numeric ? "r" : "l")).join("")}}`, "\\toprule",
      ...(rules.length ? [groups.join(" & ") + " \\\\", rules.join(" ")] : []),
      table.columns.map((c) => tex(c.title)).join(" & ") + " \\\\", "\\midrule",
      ...table.rows.map((row) => row.map(cell).join(" & ") + " \\\\"),
      "\\bottomrule", "\\end{tabular}", "\\end{table}"].join("\n") + "\n";
  };

  const save = (content, name) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], { type: "text/plain;charset=utf-8" }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    say(`${name} saved`);
  };
  const copy = async (content, button) => {
    try { await navigator.clipboard.writeText(content); }
    catch {
      const area = document.createElement("textarea");
      area.value = content;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      button.focus();
    }
    say("LaTeX copied");
  };

  document.addEventListener("DOMContentLoaded", () => {
    const data = JSON.parse(document.getElementById("data").textContent);
    paint(theme);
    document.getElementById("theme").addEventListener("click", () => {
      theme = themes[(themes.indexOf(theme) + 1) % 3];
      store(theme);
      paint(theme);
    });
    all("figure.table").forEach((figure) => {
      const table = data.tables[figure.id];
      all("tbody tr", figure).forEach((row, index) => { row.dataset.row = index; });
      all("th button", figure).forEach((button) => button.addEventListener("click", () => sort(figure, table, button)));
      const filter = figure.querySelector("[data-filter]");
      filter?.addEventListener("input", () => {
        const words = filter.value.toLowerCase().split(/\s+/);
        let count = 0;
        all("tbody tr", figure).forEach((row) => {
          const line = table.rows[Number(row.dataset.row)].map(text).join(" ").toLowerCase();
          row.hidden = !words.every((word) => line.includes(word));
          count += !row.hidden;
        });
        say(`${count} of ${table.rows.length} rows`);
      });
      const write = { csv: () => csv(table), tex: () => latex(table, figure.id, data.tex) };
      all("[data-save]", figure).forEach((button) => button.addEventListener("click", () =>
        save(write[button.dataset.save](), `${figure.id}.${button.dataset.save}`)));
      all("[data-copy]", figure).forEach((button) => button.addEventListener("click", () => copy(write.tex(), button)));
    });
    // A link to something inside closed details opens them.
    const reveal = () => {
      const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
      for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
      if (target) target.scrollIntoView();
    };
    addEventListener("hashchange", reveal);
    if (location.hash) reveal();
    // The section that is being read is marked.
    const links = new Map(all(".contents a").map((a) => [a.hash.slice(1), a]));
    const seen = new IntersectionObserver((entries) => entries.filter((e) => e.isIntersecting).forEach((e) => {
      links.forEach((a) => a.removeAttribute("aria-current"));
      const link = links.get(e.target.id), list = link?.closest("ol");
      link?.setAttribute("aria-current", "true");
      if (list && list.scrollWidth > list.clientWidth) list.scrollLeft = link.offsetLeft - list.clientWidth / 3;
    }), { rootMargin: "-10% 0px -75% 0px" });
    all("section.part").forEach((section) => seen.observe(section));
    // Everything is printed, also what is folded away on the screen.
    let closed = [];
    addEventListener("beforeprint", () => { closed = all("main details:not([open])"); closed.forEach((d) => { d.open = true; }); });
    addEventListener("afterprint", () => closed.forEach((d) => { d.open = false; }));
  });
})();
