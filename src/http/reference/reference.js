// A button that copies beside each example. Without this file the page is whole: examples are text to select.
for (const block of document.querySelectorAll('.code')) {
  const text = block.querySelector('code').textContent
  const button = document.createElement('button')
  button.type = 'button'
  button.textContent = 'Copy'
  button.setAttribute('aria-label', 'Copy this example')
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(text)
      button.textContent = 'Copied'
    } catch {
      // No clipboard without HTTPS: select it instead.
      getSelection().selectAllChildren(block.querySelector('code'))
      button.textContent = 'Selected'
    }
    setTimeout(() => (button.textContent = 'Copy'), 1500)
  })
  block.querySelector('.bar').append(button)
}

// On a narrow screen the contents begin closed.
const contents = document.querySelector('nav details')
const narrow = matchMedia('(max-width: 60rem)')
const fit = () => (contents.open = !narrow.matches)
fit()
narrow.addEventListener('change', fit)
contents.addEventListener('click', (event) => {
  if (narrow.matches && event.target.closest('a')) contents.open = false
})
