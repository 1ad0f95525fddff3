// A trap that Baby Buddy sets: when a form is sent, its button is disabled and gets a spinner. A form that is answered
// by a download stays so, and the button's own name and value may not arrive.
document.querySelectorAll("form").forEach((form) => {
    form.addEventListener("submit", (event) => {
        const button = event.submitter || form.querySelector('[type="submit"]');
        if (!button || button.disabled) return;
        button.disabled = true;
        const spinner = document.createElement("span");
        spinner.className = "spinner-border spinner-border-sm me-1";
        spinner.setAttribute("aria-hidden", "true");
        button.prepend(spinner);
    });
});
