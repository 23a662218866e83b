/* What no Python may run in the middle of (see orchestra/linux/pages), for x86-64.
 *
 *   as --64 -o pages.o pages.S && objcopy -O binary -j .text pages.o pages.x86_64
 *
 * Both functions use the stack and nothing else of the process's memory.
 */
        .intel_syntax noprefix
        .text
        .set PREAD, 17
        .set MADVISE, 28
        .set DONTNEED, 4
        .set PRESENT, 63
        .set OF_A_FILE, 61

/* carry_out(calls, count): system calls, one after the other, until one gives something else than expected.
 * A call is 64 bytes: its number, six arguments, the expected result. Returns how many were as expected. */
carry_out:
        push    rbx
        push    r12
        push    r13
        mov     rbx, rdi
        mov     r12, rsi
        xor     r13d, r13d
call:   cmp     r13, r12
        je      done
        mov     rax, [rbx]
        mov     rdi, [rbx + 8]
        mov     rsi, [rbx + 16]
        mov     rdx, [rbx + 24]
        mov     r10, [rbx + 32]
        mov     r8, [rbx + 40]
        mov     r9, [rbx + 48]
        syscall
        cmp     rax, [rbx + 56]
        jne     done
        inc     r13
        add     rbx, 64
        jmp     call
done:   mov     rax, r13
        pop     r13
        pop     r12
        pop     rbx
        ret

/* give_back(regions, count, pagemap): in each region (its start, its end, how far behind it its reference
 * lies) every page that is this process's own and equal to its reference is let go. Returns how many. */
        .org 0x60, 0xcc
give_back:
        push    rbx
        push    rbp
        push    r12
        push    r13
        push    r14
        push    r15
        sub     rsp, 4096                       /* entries of the page map */
        mov     rbx, rdi
        mov     r12, rsi
        mov     r15d, edx
        xor     r13d, r13d
        cld
region: test    r12, r12
        jz      end
        mov     r14, [rbx]
some:   mov     rbp, [rbx + 8]
        sub     rbp, r14
        jbe     over
        shr     rbp, 12
        cmp     rbp, 512
        jbe     read
        mov     ebp, 512
read:   mov     edi, r15d
        mov     rsi, rsp
        lea     rdx, [rbp * 8]
        mov     r10, r14
        shr     r10, 9
        mov     eax, PREAD
        syscall
        lea     rdx, [rbp * 8]
        cmp     rax, rdx
        jne     over
        xor     r8d, r8d
page:   mov     rax, [rsp + r8 * 8]
        bt      rax, PRESENT
        jnc     next
        bt      rax, OF_A_FILE
        jc      next
        mov     rsi, r14
        mov     rdi, r14
        add     rdi, [rbx + 16]
        mov     ecx, 512
        repe    cmpsq
        jne     next
        mov     rdi, r14
        mov     esi, 4096
        mov     edx, DONTNEED
        mov     eax, MADVISE
        syscall
        test    rax, rax
        jnz     next
        inc     r13
next:   add     r14, 4096
        inc     r8
        cmp     r8, rbp
        jne     page
        jmp     some
over:   add     rbx, 24
        dec     r12
        jmp     region
end:    mov     rax, r13
        add     rsp, 4096
        pop     r15
        pop     r14
        pop     r13
        pop     r12
        pop     rbp
        pop     rbx
        ret
