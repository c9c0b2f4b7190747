# 18 MB of functions with unwind information.
    .text
    .rept 140000
    .cfi_startproc
    push %rbx
    .cfi_def_cfa_offset 16
    .cfi_offset %rbx, -16
    .fill 112, 1, 0x90
    pop %rbx
    .cfi_def_cfa_offset 8
    ret
    .cfi_endproc
    .balign 16
    .endr
    .section .note.GNU-stack,"",@progbits
