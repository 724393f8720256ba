// A file that is too large is told so here, in the user's language, before it is sent. The server refuses it as well.
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

// Screen readers read out what changes in a place that was there before, not a place that comes with its text.
function makePlaces() {
  for (const role of ['alert', 'status']) {
    const place = document.createElement('div');
    place.id = `rs-${role}`;
    place.setAttribute('role', role);
    document.body.append(place);
  }
}

// Gradio adds this script once the page is there; as a part of it, it runs before the body.
if (document.body) makePlaces();
else addEventListener('DOMContentLoaded', makePlaces);

for (const type of ['change', 'drop']) document.addEventListener(type, refuseTooLarge, true);
document.addEventListener('click', clearAlert, true);

function showAnswer(id) {
  const answer = document.getElementById(id);
  if (!answer) return;
  document.getElementById('rs-status').textContent = answer.querySelector('h2')?.textContent ?? '';
  const { top, bottom } = answer.getBoundingClientRect();
  const inSight = top < window.innerHeight - 160 && bottom > 160;
  const calm = window.matchMedia('(prefers-reduced-motion: reduce)').matches;
  if (!inSight) answer.scrollIntoView({ behavior: calm ? 'auto' : 'smooth' });
}
