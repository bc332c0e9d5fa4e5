"""Attack nets and make the paper's table: ``python evaluate.py --help``."""

from sztrain.cli import evaluate_main

if __name__ == "__main__":
    evaluate_main()
