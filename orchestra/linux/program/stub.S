/* The interpreter of a syscall program (see orchestra/linux/program) for x86-64: two pieces of machine code.
 *
 *   as --64 -o stub.o stub.S && objcopy -O binary -j .text stub.o stub.x86_64
 *
 * `begin`, loaded at a fixed address with the program behind it, carries out one system call after the
 * other. `birth` runs in the parent: clone3 as vfork does it, and in the child execveat of the program;
 * it touches no memory in the child, whose stack is the parent's.
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
 * 256 slots of 8 bytes; their first values stand before the operations. Slot 1 is the descriptor that a
 * failure is told to: u32 0, u32 errno, u32 index of the operation. Slot 2 gets the address of 1 KiB of room.
 */
        .intel_syntax noprefix
        .text
        .set BASE, 0x400000
        .set SLOTS, BASE + 0x400
        .set OPERATIONS, SLOTS + 2048

begin:  sub     rsp, 4096
        mov     r12, rsp                        /* slots */
        lea     r13, [rsp + 2048]               /* six arguments, then the room */
        mov     esi, SLOTS
        mov     rdi, r12
        mov     ecx, 256
        cld
        rep movsq
        lea     rax, [r13 + 64]
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

        .org 0x120, 0xcc
handler:                                        /* a signal before the start: as if it had ended us */
        add     edi, 128
        jmp     gone

        .org 0x160, 0xcc
birth:  mov     r9, rcx                         /* (clone_args, its size, descriptor, argv, envp) */
        mov     eax, 435                        /* clone3 */
        syscall
        test    rax, rax
        jnz     parent
        mov     edi, edx
        lea     rsi, [rip + empty]
        mov     rdx, r9
        mov     r10, r8
        mov     r8d, 0x1000                     /* AT_EMPTY_PATH */
        mov     eax, 322                        /* execveat */
        syscall
        mov     edi, 127
        mov     eax, 231
        syscall
        hlt
parent: ret
empty:  .byte   0
