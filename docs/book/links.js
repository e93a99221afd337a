// Chapters link to pages and files of the repository, which are no chapters. mdbook changes the ending .md to .html;
// this changes it back, and takes the way from target/book instead of docs/book/src.
for (const link of document.querySelectorAll('main a[href^="../"]')) {
    const path = link.getAttribute("href").replace(/\.html(#|$)/, ".md$1");
    const [, up, rest] = path.match(/^((?:\.\.\/)+)(.*)$/);
    const folders = ["docs/book/", "docs/", ""];
    link.setAttribute("href", "../../" + folders[up.length / 3 - 1] + rest);
}
