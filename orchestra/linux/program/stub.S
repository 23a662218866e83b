/* The interpreter of a syscall program (see orchestra/linux/program) for x86-64: two pieces of machine code.
 *
 *   as --64 -o stub.o stub.S && objcopy -O binary -j .text stub.o stub.x86_64
 *
 * `begin`, loaded at a fixed address with the program behind it, carries out one system call after the
 * other. `birth` runs in the parent: it puts the descriptors that the child gets into a row of reserved numbers,
 * calls clone3, and in the child execveat of the program. The child runs on the parent's memory and stack until
 * then, beside the parent: it has what it needs in registers and touches neither.
 *
 * An operation is 64 bytes:
 *    0  u16  number of the system call
 *    2  u8   bit i: argument i is the number of a slot that holds it
 *    3  u8   the slot that the result goes to (slot 0: nobody wants it)
 *    4  u8   three errnos that are no failure (0: none)
 *    7  u8   how many operations are left out after one of these
 *    8  u64  six arguments
 *   56  u8   bit 0: the result 0 ends the process (the other side is gone); bit 1: it is not kept and
 *            nothing is left out after it (a fork, in the child)
 *   57  u8   how many operations are left out after a success
 *
 * 256 slots of 8 bytes. The first message on the channel is loaded at PLACE: texts, then the first values of
 * the slots. Slot 1 is the descriptor that a failure is told to: u32 0, u32 errno, u32 index of the operation.
 * Slot 2 gets the address of 1 KiB of room.
 */
        .intel_syntax noprefix
        .text
        .set BASE, 0x400000
        .set GIVEN, BASE + 0x400                /* u32 descriptor of the channel, u32 size of the values */
        .set OPERATIONS, GIVEN + 64
        .set PLACE, 0xC00000
        .set ROOM, 0x40000

begin:  sub     rsp, 4096
        mov     r12, rsp                        /* slots */
        lea     r13, [rsp + 2048]               /* six arguments, then the room */
        cmp     dword ptr [GIVEN + 4], 0
        je      ready                           /* no values, no channel */
        mov     edi, PLACE
        mov     esi, ROOM
        mov     edx, 3                          /* to be read and written */
        mov     r10d, 0x100022                  /* MAP_PRIVATE, MAP_ANONYMOUS, MAP_FIXED_NOREPLACE */
        mov     r8, -1
        xor     r9d, r9d
        mov     eax, 9                          /* mmap */
        syscall
        mov     edi, PLACE
        cmp     rax, rdi
        jne     leave
        mov     rsi, rdi
        mov     edi, [GIVEN]
        mov     edx, ROOM
        xor     eax, eax                        /* read */
        syscall
        mov     ecx, [GIVEN + 4]
        cmp     rax, rcx
        jl      leave
        lea     rsi, [rax + PLACE]
        sub     rsi, rcx
        mov     rdi, r12
        cld
        rep movsb
ready:  lea     rax, [r13 + 64]
        mov     [r12 + 16], rax
        mov     ebx, OPERATIONS

next:   movzx   eax, byte ptr [rbx + 2]
        xor     ecx, ecx
load:   mov     rdx, [rbx + 8 + rcx * 8]
        bt      eax, ecx
        jnc     plain
        mov     rdx, [r12 + rdx * 8]
plain:  mov     [r13 + rcx * 8], rdx
        inc     ecx
        cmp     ecx, 6
        jne     load
        mov     rdi, [r13]
        mov     rsi, [r13 + 8]
        mov     rdx, [r13 + 16]
        mov     r10, [r13 + 24]
        mov     r8, [r13 + 32]
        mov     r9, [r13 + 40]
        movzx   eax, word ptr [rbx]
        syscall
        cmp     rax, -4095
        jae     failed
        test    rax, rax
        jnz     keep
        test    byte ptr [rbx + 56], 1
        jnz     leave
        test    byte ptr [rbx + 56], 2
        jz      keep
        add     rbx, 64
        jmp     next
keep:   movzx   ecx, byte ptr [rbx + 3]
        mov     [r12 + rcx * 8], rax
        movzx   ecx, byte ptr [rbx + 57]
        jmp     go_on

failed: neg     eax
        cmp     al, [rbx + 4]
        je      soft
        cmp     al, [rbx + 5]
        je      soft
        cmp     al, [rbx + 6]
        je      soft
        cmp     eax, 4                          /* EINTR: once more */
        je      next
        mov     dword ptr [r13], 0
        mov     [r13 + 4], eax
        sub     rbx, OPERATIONS
        shr     rbx, 6
        mov     [r13 + 8], ebx
        mov     rdi, [r12 + 8]
        mov     rsi, r13
        mov     edx, 12
        mov     eax, 1                          /* write */
        syscall
leave:  mov     edi, 1
gone:   mov     eax, 231                        /* exit_group */
        syscall
        hlt
soft:   movzx   ecx, byte ptr [rbx + 7]
go_on:  inc     ecx
        shl     ecx, 6
        add     rbx, rcx
        jmp     next

        .org 0x160, 0xcc
handler:                                        /* a signal before the start: as if it had ended us */
        add     edi, 128
        jmp     gone

        .org 0x180, 0xcc
birth:  push    rbx                             /* (clone_args, its size, gifts, argv, envp) */
        push    rbp
        push    r12
        push    r13
        push    r14
        push    r15
        mov     r12, rdi
        mov     r13, rsi
        mov     rbp, rdx                        /* u32 count, first number, number for close_range or 0, filler */
        mov     r9, rcx                         /* and the sources */
        mov     r14d, [rbp + 4]
        mov     r15d, [rbp + 8]
        xor     ebx, ebx
give:   cmp     ebx, [rbp]
        je      given
        mov     edi, [rbp + 16 + rbx * 4]
        lea     esi, [r14 + rbx]
        mov     eax, 33                         /* dup2 */
        syscall
        test    eax, eax
        js      back
        inc     ebx
        jmp     give
given:  mov     rdi, r12
        mov     rsi, r13
        mov     eax, 435                        /* clone3 */
        syscall
        test    rax, rax
        jnz     back
        test    r15d, r15d
        jz      become
        mov     edi, r15d                       /* it has the parent's table: a copy of the low end is enough */
        mov     esi, -1
        mov     edx, 2                          /* CLOSE_RANGE_UNSHARE */
        mov     eax, 436                        /* close_range */
        syscall
        test    eax, eax
        jnz     lost
become: mov     edi, r14d                       /* the program is the first gift */
        lea     rsi, [rip + empty]
        mov     rdx, r9
        mov     r10, r8
        mov     r8d, 0x1000                     /* AT_EMPTY_PATH */
        mov     eax, 322                        /* execveat */
        syscall
lost:   mov     edi, 127
        mov     eax, 231
        syscall
        hlt
back:   mov     r12, rax                        /* in the parent: take them back */
take:   dec     ebx
        js      done
        mov     edi, [rbp + 12]
        lea     esi, [r14 + rbx]
        mov     edx, 0x80000                    /* O_CLOEXEC */
        mov     eax, 292                        /* dup3 */
        syscall
        jmp     take
done:   mov     rax, r12
        pop     r15
        pop     r14
        pop     r13
        pop     r12
        pop     rbp
        pop     rbx
        ret
empty:  .byte   0
