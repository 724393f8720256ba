"""Give each image of a folder one of your labels, in any of the ten languages.

make train                             # once: the model outputs/demo
python examples/classify_folder.py
"""

from collections import Counter

from demo_pictures import demo_pictures

from rsmclip import classify

MODEL = "outputs/demo"  # or the Hub id of a model
FOLDER = demo_pictures()  # or the name of your folder
LABELS = ["aeroporto", "praia", "floresta", "porto", "rio"]

found = classify(FOLDER, MODEL, LABELS, language="pt")
for label, score, entry in list(found)[::15]:
    print(f"{score:.3f}  {label:10}  {entry['path']}")
print(Counter(label for label, _, _ in found).most_common())
