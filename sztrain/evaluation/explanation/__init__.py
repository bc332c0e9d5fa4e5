r"""What sparse changes say of a net: gradients, class activation maps, and what each change does.

Every function leaves the net as it found it and looks at it in eval mode, in full precision.
"""

from sztrain.evaluation.explanation.maps import class_activation_maps, logit_gradients
from sztrain.evaluation.explanation.noise import fooled_without, label_noise, noise_scores

__all__ = [
    "class_activation_maps",
    "fooled_without",
    "label_noise",
    "logit_gradients",
    "noise_scores",
]
