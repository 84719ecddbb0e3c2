// Entries of the bibliography have a role of their own, and may not stand in a list.
document.addEventListener("DOMContentLoaded", () => {
  for (const list of document.querySelectorAll(".citation-list")) list.removeAttribute("role");
  // The switches that unfold a part of the contents are drawn, not written.
  for (const fold of document.querySelectorAll("nav summary"))
    if (!fold.textContent.trim()) fold.setAttribute("aria-label", "Show the pages below");
});
