// A file that is too large is told so here, in the user's language, before it is sent. The server refuses it as well.
function refuseTooLarge(event) {
  const words = document.getElementById('rs-words');
  const files = event.type === 'drop' ? event.dataTransfer?.files : event.target.type === 'file' && event.target.files;
  if (!words || !files || ![...files].some((file) => file.size > Number(words.dataset.limit))) return clearAlert();
  event.preventDefault();
  event.stopImmediatePropagation();
  if (event.type === 'change') event.target.value = '';
  alertBox().textContent = words.dataset.tooLarge;
}

function alertBox() {
  let box = document.getElementById('rs-alert');
  if (!box) {
    box = document.createElement('div');
    box.id = 'rs-alert';
    box.setAttribute('role', 'alert');
    document.body.append(box);
  }
  return box;
}

function clearAlert() {
  alertBox().textContent = '';
}

for (const type of ['change', 'drop']) document.addEventListener(type, refuseTooLarge, true);
document.addEventListener('click', clearAlert, true);

function showAnswer(id) {
  const answer = document.getElementById(id);
  if (!answer) return;
  const { top, bottom } = answer.getBoundingClientRect();
  const inSight = top < window.innerHeight - 160 && bottom > 160;
  const calm = window.matchMedia('(prefers-reduced-motion: reduce)').matches;
  if (!inSight) answer.scrollIntoView({ behavior: calm ? 'auto' : 'smooth' });
}
