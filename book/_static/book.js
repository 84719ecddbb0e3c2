// Entries of the bibliography have a role of their own, and may not stand in a list.
document.addEventListener("DOMContentLoaded", () => {
  for (const list of document.querySelectorAll(".citation-list")) list.removeAttribute("role");
});
