// A click on a column's title, or Enter on it, sorts the table by it: numbers the largest first, words by the alphabet,
// the other way round at the next click. A cell that says nothing stays at the end.
const number = text => { const found = text.replaceAll("−", "-").match(/^[+-]?\d[\d,]*(\.\d+)?/); return found ? parseFloat(found[0].replaceAll(",", "")) : NaN; };
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  if (body.rows.length < 2) continue;
  heads.forEach((head, column) => {
    const sort = () => {
      const text = row => row.cells[column].textContent.trim(), rows = [...body.rows];
      const told = rows.filter(row => !["", "–"].includes(text(row)));
      const numbers = told.every(row => !isNaN(number(text(row))));
      const before = head.getAttribute("aria-sort");
      const down = before ? before === "ascending" : numbers;
      told.sort((a, b) => (down ? -1 : 1) * (numbers ? number(text(a)) - number(text(b)) : text(a).localeCompare(text(b))));
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      body.append(...told, ...rows.filter(row => !told.includes(row)));
    };
    head.tabIndex = 0;
    head.title = "Sort by this column";
    head.addEventListener("click", sort);
    head.addEventListener("keydown", event => { if (event.key === "Enter") sort(); });
  });
}
