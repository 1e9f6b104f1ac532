# The ROM of the x86 machine in guest.ts: no BIOS, no operating system. From the reset vector into protected mode; then, for
# ever, it verifies every word of two MiB of its memory, writes the next generation, counts the pass, and says so on the
# serial port: '.' a pass, 'E' when a word is not what it wrote (then the address is kept, and nothing more is done).
#
#   as --32 rom.S -o rom.o && ld -m elf_i386 -Ttext 0 --oformat binary rom.o -o rom.bin

        .set    BASE, 0xF0000           # where a ROM of 64 KiB lies
        .set    AREA, 0x100000
        .set    END, 0x300000
        .set    BAD, 0x600              # address of the wrong word
        .set    PASSES, 0x604
        .set    STEP, 0x9E3779B1        # from one generation to the next: odd, so that none comes again soon

        .code16
start:  cli
        lgdtl   %cs:gdtr
        movl    %cr0, %eax
        orb     $1, %al
        movl    %eax, %cr0
        ljmpl   $8, $(BASE + flat)

        .code32
flat:   movw    $16, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        xorl    %ecx, %ecx              # the generation that is in memory
        movl    $AREA, %edi
fill:   movl    %edi, (%edi)
        addl    $4, %edi
        cmpl    $END, %edi
        jb      fill
pass:   leal    STEP(%ecx), %ebx
        movl    $AREA, %edi
check:  movl    %edi, %eax
        xorl    %ecx, %eax
        cmpl    %eax, (%edi)
        jne     bad
        movl    %edi, %eax
        xorl    %ebx, %eax
        movl    %eax, (%edi)
        addl    $4, %edi
        cmpl    $END, %edi
        jb      check
        movl    %ebx, %ecx
        incl    PASSES
        movw    $0x3F8, %dx
        movb    $'.', %al
        outb    %al, %dx
        jmp     pass
bad:    movl    %edi, BAD
        movw    $0x3F8, %dx
        movb    $'E', %al
        outb    %al, %dx
stop:   hlt
        jmp     stop

        .balign 8
gdt:    .quad   0
        .quad   0x00CF9A000000FFFF      # code, flat
        .quad   0x00CF92000000FFFF      # data, flat
gdtr:   .word   23
        .long   BASE + gdt
