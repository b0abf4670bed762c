"""MXNet's names -> names that a graph may have: words of letters, digits, `_`, `-` and `@`."""

import keyword
import re

# What a module of torch has itself, so that no layer may be called so.
_TAKEN = """
T_destination add_module add_submodule apply bfloat16 buffers call_super_init children code compile
cpu cuda delete_all_unused_submodules delete_submodule double dump_patches eval extra_repr float
forward get_buffer get_extra_state get_parameter get_submodule graph half ipu load_state_dict
modules mtia named_buffers named_children named_modules named_parameters parameters print_readable
recompile register_backward_hook register_buffer register_forward_hook register_forward_pre_hook
register_full_backward_hook register_full_backward_pre_hook register_load_state_dict_post_hook
register_load_state_dict_pre_hook register_module register_parameter
register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ set_extra_state
set_submodule share_memory state_dict to to_empty to_folder train training type xpu zero_grad
"""
TAKEN = frozenset(_TAKEN.split())


def plain(name: str) -> str:
    """Return a name that a graph may have, and a layer of a module."""
    safe = re.sub(r"[^\w@-]", "_", name, flags=re.ASCII) or "_"
    private = safe.startswith("_") and safe.strip("_").isalpha()  # such as _modules; not _plus0
    return f"{safe}_" if safe in TAKEN or private or keyword.iskeyword(safe) else safe
