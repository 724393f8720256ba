// Refuses a file that is too large before it is sent, in the user's language. The server refuses it too.
function refuseTooLarge(event) {
  const words = document.getElementById('rs-words');
  const files = event.type === 'drop' ? event.dataTransfer?.files : event.target.type === 'file' && event.target.files;
  if (!words || !files || ![...files].some((file) => file.size > Number(words.dataset.limit))) return clearAlert();
  event.preventDefault();
  event.stopImmediatePropagation();
  if (event.type === 'change') event.target.value = '';
  document.getElementById('rs-alert').textContent = words.dataset.tooLarge;
}

function clearAlert() {
  document.getElementById('rs-alert').textContent = '';
}

// Gradio's own messages are in English or in the language of the browser: style.css hides them.
function showFailure(mutations) {
  const isMessage = (node) => node.querySelector?.('[data-testid="toast-text"]');
  const words = document.getElementById('rs-words');
  if (words && mutations.some((mutation) => [...mutation.addedNodes].some(isMessage)))
    document.getElementById('rs-alert').textContent = words.dataset.failed;
}

// Gradio opens a list of choices at any key, also at those that leave it.
function leaveChoices(event) {
  if (['Tab', 'Shift'].includes(event.key) && event.target.role === 'combobox') event.stopImmediatePropagation();
}

// Screen readers announce a change in an element that exists already, but not a new element with its text.
function makePlaces() {
  for (const role of ['alert', 'status']) {
    const place = document.createElement('div');
    place.id = `rs-${role}`;
    place.setAttribute('role', role);
    document.body.append(place);
  }
  new MutationObserver(showFailure).observe(document.body, { childList: true, subtree: true });
}

// Gradio may add this script after the page is loaded, or in its head, where there is no body yet.
if (document.body) makePlaces();
else addEventListener('DOMContentLoaded', makePlaces);

for (const type of ['change', 'drop']) document.addEventListener(type, refuseTooLarge, true);
document.addEventListener('click', clearAlert, true);
document.addEventListener('keydown', leaveChoices, true);

function showAnswer(id) {
  const answer = document.getElementById(id);
  if (!answer) return;
  document.getElementById('rs-status').textContent = answer.querySelector('h2')?.textContent ?? '';
  const { top, bottom } = answer.getBoundingClientRect();
  const inSight = top < window.innerHeight - 160 && bottom > 160;
  const calm = window.matchMedia('(prefers-reduced-motion: reduce)').matches;
  if (!inSight) answer.scrollIntoView({ behavior: calm ? 'auto' : 'smooth' });
}
