"""Fine-tune a model on your own images, with captions in a CSV file.

    make train                             # once: the model outputs/demo
    python examples/finetune_csv.py

The folder has the images and metadata.csv, with the columns file_name and text, and a line for each caption.
docs/data.md explains files with other columns.
"""

from demo_pictures import demo_pictures

from rsmclip import build_corpus, train_model

MODEL = "outputs/demo"  # or the folder of a converted model, see docs/recipe.md
FOLDER = demo_pictures()  # or the name of your folder

report = build_corpus([f"imagefolder={FOLDER}"], "outputs/pictures_corpus", split="80/10/10", overwrite=True)
print({f"{source}, {split}": images for (source, split), images in report.rows.items()})

results = train_model(
    "finetune",  # configs/finetune.yaml; the fields below replace its fields
    dataset="outputs/pictures_corpus",
    model=MODEL,
    languages=["en"],
    num_train_epochs=2,
    batch_size=16,  # for few images; 128 in the recipe
    mixed_precision="no",  # for a CPU; bf16 in the recipe
    num_workers=0,
    output_dir="outputs/finetuned",
    overwrite_output_dir=True,
)
before, after = (figures["en"]["mean_recall"] for figures in (results.untrained, results.metrics))
print(f"mean recall on the test split: {before:.1f} before, {after:.1f} after")
