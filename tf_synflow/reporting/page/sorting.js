// A click on a column's title sorts the table by it; a second click turns the order.
for (const table of document.querySelectorAll("table.sortable")) {
  const titles = [...table.tHead.rows[0].cells];
  titles.forEach((title, column) => {
    title.querySelector("button").addEventListener("click", () => {
      const down = title.getAttribute("aria-sort") === "ascending";
      titles.forEach((other) => other.removeAttribute("aria-sort"));
      title.setAttribute("aria-sort", down ? "descending" : "ascending");
      const isText = title.classList.contains("text");
      const keyed = [...table.tBodies[0].rows].map((row) => {
        const value = row.cells[column].dataset.value;
        return [isText ? value : value === "" ? NaN : Number(value), row];
      });
      // What is not known comes last, in either order.
      keyed.sort(([a], [b]) => {
        if (isText) return (down ? -1 : 1) * a.localeCompare(b, "en", {numeric: true});
        if (isNaN(a) || isNaN(b)) return isNaN(a) - isNaN(b);
        return down ? b - a : a - b;
      });
      table.tBodies[0].append(...keyed.map(([, row]) => row));
    });
  });
}
