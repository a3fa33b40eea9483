// Figures with several pictures show one at a time, with buttons. Without this, they show all.
for (const frames of document.querySelectorAll(".frames")) {
    const figures = [...frames.querySelectorAll("figure")];
    const button = (text, label, step) => {
        const element = document.createElement("button");
        element.type = "button";
        element.textContent = text;
        element.setAttribute("aria-label", label);
        element.addEventListener("click", () => show(shown + step));
        return element;
    };
    const count = document.createElement("span");
    count.setAttribute("aria-live", "polite");
    const back = button("←", frames.dataset.back ?? "back", -1);
    const on = button("→", frames.dataset.next ?? "next", 1);
    const bar = document.createElement("nav");
    bar.append(back, count, on);
    frames.append(bar);
    let shown = 0;
    const show = (index) => {
        shown = index;
        figures.forEach((figure, number) => { figure.hidden = number !== index; });
        count.textContent = `${index + 1} / ${figures.length}`;
        back.disabled = index === 0;
        on.disabled = index === figures.length - 1;
    };
    show(0);
}
