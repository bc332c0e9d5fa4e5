"""Train a classifier against sparse attacks: ``python train.py --help``."""

from sztrain.cli import train_main

if __name__ == "__main__":
    train_main()
